"""The proactive scheduler: of all releases that run, one leads."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import psycopg2
from psycopg2.extensions import connection

from server_agent import cycle, store
from server_agent.link import connect
from server_agent.settings import Settings

TICK = 5.0  # seconds between two signs of life
STANDBY = 1.0  # seconds between two tries to take the lead
LATE = 300.0  # seconds that a step may take: an action is carried out in one

log = logging.getLogger("server_agent.proactive")


class Scheduler:
    """Leads while it holds an advisory lock, on a connection that is its alone.

    The lock goes with the connection, so a killed agent gives it up at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._look_at = 0.0
        self._seen: frozenset[str] = frozenset()
        self._link: connection | None = None
        self.leads = False

    def step(self) -> float:
        """Take the lead where it is free, and while leading do one round of the cycle.

        Raises:
            psycopg2.Error: The database is gone; the lead is then given up.
        """
        try:
            link = self._connected()
            if not self.leads:
                self._take_lead(link)
            if not self.leads:
                return STANDBY
            return self._round(link)
        except psycopg2.Error:
            self.close()
            raise

    def _connected(self) -> connection:
        if self._link is None or self._link.closed:
            self.leads = False
            self._link = connect(self._settings.database_url)
            self._link.autocommit = True
            log.info("standing by")
        return self._link

    def _take_lead(self, link: connection) -> None:
        with link.cursor() as found:
            found.execute("select pg_try_advisory_lock(%s)", (store.LEADER,))
            row = found.fetchone()
        if row and row[0]:
            cycle.take_over(link)
            self.leads = True
            log.info("leading")

    def _round(self, link: connection) -> float:
        with link.cursor() as found:
            found.execute(store.BEAT, (self._settings.sha,))
        if cycle.act(link, self._settings):
            return 0.0
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._settings.look_seconds
            self._seen = cycle.look(link, self._settings, self._seen)
        return min(TICK, self._settings.look_seconds)

    def close(self) -> None:
        """Give up the lead."""
        self.leads = False
        if self._link is not None:
            with suppress(psycopg2.Error):
                self._link.close()
        self._link = None
