"""A real PostgreSQL in a container, and this machine as the host it runs on."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.host import Host, local_host
from deploy.log import RunLog
from deploy.postgres.access import Database
from deploy.redact import Redactor
from tests.support.container import IMAGES, SECRET, serving, sql
from tests.support.dumps import SCHEMA


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], str]]:
    """Give the name of a container with the PostgreSQL of an image, ready."""
    with ExitStack() as running:
        yield functools.cache(lambda image: running.enter_context(serving(image)))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, servers: Callable[[str], str]) -> str:
    """The name of a container with PostgreSQL: the one that is deployed, or what is asked for."""
    return servers(getattr(request, "param", IMAGES[0]))


@pytest.fixture
def log() -> RunLog:
    return RunLog(Redactor().with_values((SECRET,)), io.StringIO())


@pytest.fixture
def here(log: RunLog) -> Host:
    return local_host(log)


@pytest.fixture
def database(server: str, here: Host, tmp_path: Path) -> Database:
    """An empty database of the server, with a folder for its backups."""
    sql(server, "drop database if exists live with (force)", "postgres")
    sql(server, "create database live", "postgres")
    folder = str(tmp_path / "backups")
    return Database(here, server, folder, "shop", 60, str(tmp_path / "lib"))


@pytest.fixture
def filled(database: Database) -> Database:
    sql(database.container, SCHEMA)
    return database
