"""The agent's database: a connection a thread, and what is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import connection, cursor
from psycopg2.extras import Json

from server_agent.link import Late, connect

T = TypeVar("T")
LEADER = 7_431_001  # the advisory lock of the one scheduler

SAVE = """
insert into telegram_updates (update_id, payload) values (%s, %s)
on conflict (update_id) do nothing
"""
BEAT = """
insert into scheduler_heartbeat (id, beaten_at, leader) values (1, now(), %s)
on conflict (id) do update set beaten_at = excluded.beaten_at, leader = excluded.leader
"""


@dataclass(frozen=True)
class Queue:
    """Rows that wait for their turn, by the statements that find, settle and put off one."""

    name: str
    next: str
    settle: str
    postpone: str


@dataclass(frozen=True)
class Row:
    """The row whose turn it is, locked: its key, how often it was tried, what it holds."""

    queue: Queue
    id: int
    attempts: int
    content: tuple[Any, ...]


UPDATES = Queue(
    "update",
    next="""
select update_id, attempts, payload from telegram_updates
where state = 'new' and next_try_at <= now()
order by update_id limit 1 for update skip locked
""",
    settle="""
update telegram_updates set state = %s, attempts = attempts + 1,
    answered_at = case when %s = 'answered' then now() end
where update_id = %s
""",
    postpone="""
update telegram_updates
set attempts = attempts + 1, next_try_at = now() + make_interval(secs => %s)
where update_id = %s
""",
)


class Store:
    """Hands each thread its own connection, and a new one after a failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._threads = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[cursor]:
        """Run statements that all happen, or none.

        Raises:
            psycopg2.Error: The database is gone, or refuses.
        """
        link = self._link()
        if link is None:
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

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            psycopg2.Error: There is none.
        """
        self._again(self._ping)

    def save(self, update_id: int, payload: dict[str, Any]) -> bool:
        """Store an update; return False when it was there already.

        Raises:
            psycopg2.Error: The database is gone, or refuses.
        """
        return self._again(lambda: self._save(update_id, payload))

    def _link(self) -> connection | None:
        link: connection | None = getattr(self._threads, "link", None)
        return None if link is None or link.closed else link

    def _again(self, work: Callable[[], T]) -> T:
        """Give work that may be repeated one more try, on a new connection.

        A connection that a restart of the database cut shows it only when it is used. A server
        that did not answer in time gets no second try: that would double the wait.
        """
        used = self._link() is not None
        try:
            return work()
        except Late:
            raise
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            if not used:
                raise
            return work()

    def _ping(self) -> None:
        with self.transaction() as found:
            found.execute("select 1")

    def _save(self, update_id: int, payload: dict[str, Any]) -> bool:
        with self.transaction() as found:
            found.execute(SAVE, (update_id, Json(payload)))
            return found.rowcount == 1

    @contextmanager
    def next_in(self, queue: Queue) -> Iterator[tuple[cursor, Row] | None]:
        """Lock the next row that waits, and keep it locked until the block ends."""
        with self.transaction() as found:
            found.execute(queue.next)
            row = found.fetchone()
            yield (found, Row(queue, row[0], row[1], row[2:])) if row else None


def settle(found: cursor, row: Row, state: str) -> None:
    """Write down that a row needs nothing more."""
    found.execute(row.queue.settle, (state, state, row.id))


def postpone(found: cursor, row: Row, seconds: float) -> None:
    """Write down that a row is to be tried again after some seconds."""
    found.execute(row.queue.postpone, (seconds, row.id))
