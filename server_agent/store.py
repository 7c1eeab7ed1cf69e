"""The agent's database: a connection a thread, of which no step can hang.

libpq's own deadlines leave gaps: `connect_timeout` does not count the name's resolution, and
`statement_timeout` is kept by the server, so a server that is frozen keeps no promise.
"""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import connection, cursor

from server_agent.threads import within

T = TypeVar("T")
STATEMENT = 2000  # milliseconds, kept by the server
ANSWER = 3.0  # seconds to connect, and for any one answer; longer, so that the server is first


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
        link: connection | None = getattr(self._threads, "link", None)
        if link is None or link.closed:
            link = self._threads.link = connect(self._url)
        try:
            with link.cursor() as found:
                yield found
            link.commit()
        except BaseException:
            # Closed, not rolled back: on a dead connection that fails and hides the cause.
            with suppress(psycopg2.Error):
                link.close()
            raise

    def run(self, work: Callable[[cursor], T]) -> T:
        """Do in a transaction what may be repeated.

        A connection that a restart of the database cut shows it only when it is used, so it gets
        another try. A server that is late gets none: that would double the wait.
        """
        try:
            with self.transaction() as found:
                return work(found)
        except Late:
            raise
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            with self.transaction() as found:
                return work(found)


def next_in(found: cursor, queue: Queue) -> Row | None:
    """Lock the next row that waits, until the transaction ends."""
    found.execute(queue.next)
    row = found.fetchone()
    return Row(queue, row[0], row[1], row[2:]) if row else None


def settle(found: cursor, row: Row, state: str, pause: float = 0.0) -> None:
    """Write down what became of a row; one that stays `new` is tried again after the pause."""
    found.execute(row.queue.settle, {"id": row.id, "state": state, "pause": pause})


def connect(url: str) -> connection:
    """Open a connection whose every step has a deadline."""
    extensions.set_wait_callback(wait)  # for the process: psycopg2 knows no narrower place for it
    options = f"-c statement_timeout={STATEMENT}"
    try:
        return within(ANSWER, lambda: psycopg2.connect(url, options=options))
    except TimeoutError:
        raise Late("the database could not be connected to in time") from None


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
