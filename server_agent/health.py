"""Whether the agent and what it leans on work."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg2

from server_agent import budget, telegram
from server_agent.loop import Loop
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError

log = logging.getLogger("server_agent.telegram")

FRESH = 15.0  # seconds between two looks at the Bot API
SOON = 2.0  # the same after a failure


class TelegramProbe:
    """Knows how the Bot API was when it was last asked; asking it on demand could hang."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        first = "starting" if settings.telegram_token else "disabled"
        self.status: dict[str, Any] = {"status": first, "latency_ms": None}

    def step(self) -> float:
        """Ask the Bot API; return the seconds to wait before the next look."""
        if not self._settings.telegram_token:
            return FRESH
        began = time.monotonic()
        try:
            telegram.get_me(self._settings)
            state = "ok"
        except TelegramError as error:
            state = "failed"
            log.warning("the Bot API cannot be used: %s", error.why)
        self.status = {"status": state, "latency_ms": _since(began)}
        return FRESH if state == "ok" else SOON


def database(store: Store) -> dict[str, Any]:
    """Ask the database."""
    began = time.monotonic()
    try:
        store.ping()
    except psycopg2.Error:
        return {"status": "failed", "latency_ms": _since(began)}
    return {"status": "ok", "latency_ms": _since(began)}


def tokens(store: Store, settings: Settings, *, reachable: bool) -> dict[str, Any]:
    """Ask the database for what models have cost; `unknown` when it cannot tell.

    Args:
        store: The database.
        settings: The limits.
        reachable: Whether the database has just answered: one that has not is not waited for.
    """
    if not reachable:
        return {"status": "unknown"}
    try:
        with store.transaction() as found:
            day, month = budget.current(found, settings)
    except psycopg2.Error:
        return {"status": "unknown"}
    return {
        "status": budget.status((day, month)),
        "day": {**vars(day), "renewed": day.renewed},
        "month": {**vars(month), "renewed": month.renewed},
    }


def of_updates(state: str, loop: Loop) -> dict[str, Any]:
    """Say how updates come in, given what the loop that sees to it says of itself."""
    return {"status": state if loop.status()["status"] == "ok" else "failed"}


def overall(checks: dict[str, dict[str, Any]]) -> str:
    """Return `down` without a database, `degraded` when anything else failed, else `ok`."""
    if checks["database"]["status"] != "ok":
        return "down"
    failed = any(check["status"] == "failed" for check in checks.values())
    return "degraded" if failed else "ok"


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
