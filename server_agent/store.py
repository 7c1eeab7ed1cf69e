"""The agent's database: a connection a thread, every statement with a deadline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection, cursor
from psycopg2.extras import Json

CONNECT = 2  # seconds
STATEMENT = 3000  # milliseconds
LEADER = 7_431_001  # the advisory lock of the one scheduler

SAVE = """
insert into telegram_updates (update_id, payload) values (%s, %s)
on conflict (update_id) do nothing
"""
NEXT = """
select update_id, payload, attempts from telegram_updates
where state = 'new' and next_try_at <= now()
order by update_id limit 1 for update skip locked
"""
SETTLE = """
update telegram_updates set state = %s, attempts = attempts + 1, answered_at = now()
where update_id = %s
"""
POSTPONE = """
update telegram_updates
set attempts = attempts + 1, next_try_at = now() + make_interval(secs => %s)
where update_id = %s
"""
BEAT = """
insert into scheduler_heartbeat (id, beaten_at, leader) values (1, now(), %s)
on conflict (id) do update set beaten_at = excluded.beaten_at, leader = excluded.leader
"""


@dataclass(frozen=True)
class Update:
    """A stored Telegram update that waits for its answer."""

    id: int
    payload: dict[str, Any]
    attempts: int


def connect(url: str) -> connection:
    """Open a connection whose every step has a deadline.

    Raises:
        psycopg2.OperationalError: The database is not there.
    """
    return psycopg2.connect(
        url,
        connect_timeout=CONNECT,
        options=f"-c statement_timeout={STATEMENT}",
        tcp_user_timeout=STATEMENT,
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
        link: connection | None = getattr(self._threads, "link", None)
        if link is None or link.closed:
            link = self._threads.link = connect(self._url)
        try:
            with link, link.cursor() as found:
                yield found
        except BaseException:
            with suppress(psycopg2.Error):
                link.close()
            raise

    def ping(self) -> None:
        """Ask the database for a sign of life; a connection that went stale gets one more try.

        Raises:
            psycopg2.Error: There is none.
        """
        try:
            self._ping()
        except psycopg2.OperationalError:
            self._ping()

    def _ping(self) -> None:
        with self.transaction() as found:
            found.execute("select 1")

    def save(self, update_id: int, payload: dict[str, Any]) -> bool:
        """Store an update; return False when it was there already."""
        with self.transaction() as found:
            found.execute(SAVE, (update_id, Json(payload)))
            return found.rowcount == 1

    @contextmanager
    def next_update(self) -> Iterator[tuple[cursor, Update] | None]:
        """Lock the next update that waits, and keep it locked until the block ends."""
        with self.transaction() as found:
            found.execute(NEXT)
            row = found.fetchone()
            yield (found, Update(*row)) if row else None


def settle(found: cursor, update: Update, state: str) -> None:
    """Write down that an update needs nothing more."""
    found.execute(SETTLE, (state, update.id))


def postpone(found: cursor, update: Update, seconds: float) -> None:
    """Write down that an update is to be tried again after some seconds."""
    found.execute(POSTPONE, (seconds, update.id))
