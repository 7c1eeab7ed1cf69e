"""Whether the agent and what it leans on work."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg2

from server_agent import budget, telegram
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError

FRESH = 15.0  # seconds between two looks at the Bot API
SOON = 2.0  # the same after a failure


class TelegramProbe:
    """Knows how the Bot API was when it was last asked; asking it on demand could hang."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        first = "starting" if settings.telegram_api_token else "disabled"
        self.status: dict[str, Any] = {"status": first, "latency_ms": None}

    def step(self) -> float:
        """Ask the Bot API; return the seconds to wait before the next look."""
        if not self._settings.telegram_api_token:
            return FRESH
        began = time.monotonic()
        state = "ok"
        try:
            telegram.get_me(self._settings)
        except TelegramError as error:
            state = "failed"
            log = logging.getLogger("server_agent.telegram")
            log.warning("the Bot API cannot be used: %s", error.why)
        self.status = _since(began, state)
        return FRESH if state == "ok" else SOON


def database(store: Store) -> dict[str, Any]:
    """Ask the database for a sign of life."""
    began = time.monotonic()
    try:
        store.run("select 1")
    except psycopg2.Error as error:
        log = logging.getLogger("server_agent.health")
        log.warning("the database cannot be used: %s", str(error).strip() or type(error).__name__)
        return _since(began, "failed")
    return _since(began, "ok")


def tokens(store: Store, settings: Settings) -> dict[str, Any]:
    """Ask the database for what models have cost; `unknown` when it cannot tell."""
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


def overall(checks: dict[str, dict[str, Any]]) -> str:
    """Return `down` without a database, `degraded` when anything else failed, else `ok`."""
    if checks["database"]["status"] != "ok":
        return "down"
    failed = any(check["status"] == "failed" for check in checks.values())
    return "degraded" if failed else "ok"


def _since(began: float, state: str) -> dict[str, Any]:
    return {"status": state, "latency_ms": round((time.monotonic() - began) * 1000, 1)}
