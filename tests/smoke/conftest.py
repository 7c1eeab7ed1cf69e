"""The live agent: at SMOKE_URL, or one that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import bot_api
from sandbox.bot_api import BotApi
from tests.support import agent, postgres


@pytest.fixture(scope="module")
def live_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = os.environ.get("SMOKE_URL", "").rstrip("/")
    if url:
        yield url
        return
    log: Path = tmp_path_factory.mktemp("smoke") / "agent.log"
    with postgres.server() as server, postgres.scratch(server) as database:
        agent.migrate(database)
        with bot_api.served(BotApi()) as api:
            settings = agent.environment(database, api.url)
            with agent.running(settings, log) as found:
                yield found.url
