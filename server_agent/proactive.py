"""The proactive scheduler: of all releases that run, one leads."""

from __future__ import annotations

import logging
from contextlib import suppress

import psycopg2
from psycopg2.extensions import connection

from server_agent import store
from server_agent.link import connect

TICK = 5.0  # seconds between two signs of life
STANDBY = 1.0  # seconds between two tries to take the lead

log = logging.getLogger("server_agent.proactive")


class Scheduler:
    """Leads while it holds an advisory lock, on a connection that is its alone.

    The lock goes with the connection, so a killed agent gives it up at once.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._link: connection | None = None
        self.leads = False

    def step(self) -> float:
        """Take the lead where it is free, and while leading write a sign of life.

        Raises:
            psycopg2.Error: The database is gone; the lead is then given up.
        """
        try:
            self._step()
        except psycopg2.Error:
            self.close()
            raise
        return TICK if self.leads else STANDBY

    def _step(self) -> None:
        if self._link is None or self._link.closed:
            self.leads = False
            self._link = connect(self._url)
            self._link.autocommit = True
            log.info("standing by")
        with self._link.cursor() as found:
            if not self.leads:
                found.execute("select pg_try_advisory_lock(%s)", (store.LEADER,))
                row = found.fetchone()
                self.leads = bool(row and row[0])
                if self.leads:
                    log.info("leading")
            if self.leads:
                found.execute(store.BEAT, (self._name,))

    def close(self) -> None:
        """Give up the lead."""
        self.leads = False
        if self._link is not None:
            with suppress(psycopg2.Error):
                self._link.close()
        self._link = None
