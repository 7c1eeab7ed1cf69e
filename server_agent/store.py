"""The agent's database: a connection a thread, of which no step can hang.

libpq's own deadlines leave gaps: `connect_timeout` does not count the name's resolution, and
`statement_timeout` is kept by the server, so a server that is frozen keeps no promise.
"""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import connection, cursor

from server_agent.threads import within

NAME = 2.0  # seconds to find the server's address
STATEMENT = 2000  # milliseconds, kept by the server
ANSWER = 3.0  # seconds for any one answer, kept here; longer, so that the server is first


class Late(psycopg2.OperationalError):
    """The database did not answer in time."""


@dataclass(frozen=True)
class Queue:
    """Rows that wait for their turn, and the statements that find and settle one."""

    name: str
    next: str
    settle: str


@dataclass(frozen=True)
class Row:
    """The row whose turn it is, locked: its key, how often it was tried, what it holds."""

    queue: Queue
    id: int
    attempts: int
    content: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.queue.name} {self.id}"


class Store:
    """Hands each thread its own connection, and a new one after a failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._threads = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[cursor]:
        """Run statements that all happen, or none."""
        if not self._is_connected():
            self._threads.link = connect(self._url)
        link: connection = self._threads.link
        try:
            with link.cursor() as found:
                yield found
            link.commit()
        except BaseException:
            # Closed, not rolled back: on a dead connection that fails and hides the cause.
            with suppress(psycopg2.Error):
                link.close()
            raise

    def run(self, statement: str, *values: object) -> int:
        """Run a statement that may be repeated; return the number of its rows.

        A connection that a restart of the database cut shows it only when it is used, so it gets
        another try. A server that is late gets none: that would double the wait.
        """
        fresh = not self._is_connected()
        try:
            return self._run(statement, values)
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if fresh or isinstance(error, Late):
                raise
        return self._run(statement, values)

    @contextmanager
    def next_in(self, queue: Queue) -> Iterator[tuple[cursor, Row] | None]:
        """Lock the next row that waits, and keep it locked until the block ends."""
        with self.transaction() as found:
            found.execute(queue.next)
            row = found.fetchone()
            yield (found, Row(queue, row[0], row[1], row[2:])) if row else None

    def _is_connected(self) -> bool:
        link: connection | None = getattr(self._threads, "link", None)
        return link is not None and not link.closed

    def _run(self, statement: str, values: tuple[object, ...]) -> int:
        with self.transaction() as found:
            found.execute(statement, values)
            return found.rowcount


def settle(found: cursor, row: Row, state: str, pause: float = 0.0) -> None:
    """Write down what became of a row; one that stays `new` is tried again after the pause."""
    found.execute(row.queue.settle, {"id": row.id, "state": state, "pause": pause})


def connect(url: str) -> connection:
    """Open a connection whose every step has a deadline."""
    extensions.set_wait_callback(wait)  # for the process: psycopg2 knows no narrower place for it
    return psycopg2.connect(
        extensions.make_dsn(url, **addresses(url)),
        options=f"-c statement_timeout={STATEMENT}",
        tcp_user_timeout=STATEMENT,
    )


def wait(link: connection) -> None:
    """Wait until the server has answered; psycopg2 closes the connection when this raises."""
    ends = time.monotonic() + ANSWER
    while (state := link.poll()) != extensions.POLL_OK:
        watch = select.poll()
        watch.register(
            link.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT
        )
        if not watch.poll(max(0.0, ends - time.monotonic()) * 1000):
            raise Late("the database did not answer in time")


def look_up(name: str) -> list[str]:
    """Return the addresses that a name has."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def addresses(
    url: str, resolver: Callable[[str], list[str]] = look_up, seconds: float = NAME
) -> dict[str, str]:
    """Return the server's addresses in libpq's words; nothing where libpq needs no name."""
    known = extensions.parse_dsn(url)
    name = known.get("host", "")
    if not name or name.startswith("/") or "," in name or "hostaddr" in known:
        return {}
    try:
        found = within(seconds, lambda: resolver(name))
    except TimeoutError:
        raise Late("the name of the database's server was not found in time") from None
    except OSError as error:
        raise psycopg2.OperationalError(f"the database's server: {error}") from None
    # libpq tries them in turn; it wants a name for each, which a certificate is checked against.
    return {"host": ",".join([name] * len(found)), "hostaddr": ",".join(found)}
