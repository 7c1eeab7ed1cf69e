"""A scratch database on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2 import sql

IMAGE = "postgres:15-bookworm"
READY = 60  # seconds a server gets to answer


@contextmanager
def server() -> Iterator[str]:
    """Give the address of a server: TEST_DATABASE_URL's, or one in a throw-away container."""
    url = os.environ.get("TEST_DATABASE_URL", "")
    if url:
        yield url
        return
    name = f"agent-test-{uuid.uuid4().hex[:8]}"
    _docker(
        *("run", "--detach", "--name", name, "--publish", "127.0.0.1::5432"),
        *("--tmpfs", "/var/lib/postgresql/data", "--env", "POSTGRES_USER=test"),
        *("--env", "POSTGRES_PASSWORD=test", IMAGE, "postgres", "-c", "fsync=off"),
    )
    try:
        port = _docker("port", name, "5432").splitlines()[0].rpartition(":")[2]
        url = f"postgresql://test:test@127.0.0.1:{port}/test"
        _await(url)
        yield url
    finally:
        _docker("rm", "--force", "--volumes", name)


@contextmanager
def scratch(url: str, template: str = "template1") -> Iterator[str]:
    """Give the address of a new database on a server, a copy of another; drop it afterwards."""
    name = f"scratch_{uuid.uuid4().hex[:12]}"
    names = map(sql.Identifier, (name, template))
    execute(url, sql.SQL("create database {} template {}").format(*names))
    try:
        yield f"{url.rpartition('/')[0]}/{name}"
    finally:
        execute(url, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def execute(url: str, statement: sql.Composable) -> None:
    """Run one statement outside any transaction."""
    with closing(psycopg2.connect(url, connect_timeout=5)) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute(statement)


def _await(url: str) -> None:
    ends = time.monotonic() + READY
    while True:
        try:
            psycopg2.connect(url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return


def _docker(*words: str) -> str:
    done = subprocess.run(
        ("docker", *words), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise AssertionError(f"docker {words[0]} failed: {done.stderr.strip()}")
    return done.stdout
