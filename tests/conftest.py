"""A real PostgreSQL and a local Bot API for the tests of the agent."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from sandbox import bot_api
from sandbox.bot_api import BotApi
from tests.support import agent, postgres


def pytest_configure() -> None:
    # A machine that is busy is slow: by default that fails a test.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
    # Most of the time of a short process is compiling, where nothing keeps what is compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    with postgres.scratch(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    with postgres.scratch(postgres_url) as url:
        agent.migrate(url)
        yield url.rpartition("/")[2]


@pytest.fixture
def migrated_database(postgres_url: str, template: str) -> Iterator[str]:
    with postgres.scratch(postgres_url, template) as url:
        yield url


@pytest.fixture
def telegram() -> Iterator[BotApi]:
    with bot_api.served(BotApi()) as api:
        yield api
