"""A scratch database on a real PostgreSQL."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg2
from psycopg2 import extensions, sql

IMAGE = "postgres:15-bookworm"
READY = 60  # seconds a server gets to answer


class Line:
    """A wire to a server that can be frozen, so that nothing passes, or cut."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), parts.port or 5432)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        port = self._door.getsockname()[1]
        self.url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Let nothing pass; connections stay open, and new ones are still taken."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let everything pass again, what was held back first."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection, as a restart of the server does; new ones are taken."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take the wire away."""
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.cut()
        self.thaw()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(self._server)
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # Each pump closes the end that it reads; the other pump reads the other end.
        with suppress(OSError):
            source.close()


@contextmanager
def line(url: str) -> Iterator[Line]:
    """Lay a wire to a server, to be troubled."""
    found = Line(url)
    try:
        yield found
    finally:
        found.close()


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
        # An agent within this process has left its own, which gives a server three seconds.
        extensions.set_wait_callback(None)
        execute(url, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def execute(url: str, statement: sql.Composable) -> None:
    """Run one statement outside any transaction."""
    with closing(psycopg2.connect(url, connect_timeout=5)) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute(statement)


def query(url: str, statement: str | sql.Composable, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement; return the rows that it gives, if it gives any."""
    with closing(psycopg2.connect(url, connect_timeout=5)) as link, link.cursor() as cursor:
        cursor.execute(statement, values)
        found = cursor.fetchall() if cursor.description else []
        link.commit()
        return found


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
