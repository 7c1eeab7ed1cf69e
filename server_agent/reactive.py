"""The reactive worker: answers what the Master writes, exactly once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from server_agent import store, telegram
from server_agent.settings import Settings
from server_agent.store import Store, Update
from server_agent.telegram import TelegramError

IDLE = 1.0  # seconds between two looks when nothing wakes it
TRIES = 6
LONGEST_PAUSE = 60.0

HELP = "I look after this server.\n/status - how it is\n/help - this text"

log = logging.getLogger("server_agent.reactive")


def step(settings: Settings, updates: Store, health: Callable[[], dict[str, Any]]) -> float:
    """Handle the next update that waits; return the seconds to wait before the next look."""
    with updates.next_update() as waiting:
        if waiting is None:
            return IDLE
        found, update = waiting
        text = question(update.payload, settings.master_chat_id)
        if text is None or not settings.telegram_token:
            log.info("update %s ignored: not from the Master, or no text", update.id)
            store.settle(found, update, "ignored")
            return 0.0
        try:
            telegram.send_message(settings, settings.master_chat_id, answer(text, health))
        except TelegramError as error:
            _fail(found, update, error)
            return 0.0
        store.settle(found, update, "answered")
        log.info("update %s answered", update.id)
        return 0.0


def _fail(found: Any, update: Update, error: TelegramError) -> None:
    if error.final or update.attempts + 1 >= TRIES:
        log.error("update %s given up: %s", update.id, error.why)
        store.settle(found, update, "failed")
        return
    pause = error.retry_after or min(LONGEST_PAUSE, 0.5 * 2**update.attempts)
    log.warning("update %s postponed by %s s: %s", update.id, pause, error.why)
    store.postpone(found, update, pause)


def question(payload: dict[str, Any], master: str) -> str | None:
    """Return what the Master wrote, or None when it is not the Master or no text."""
    message = payload.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("chat"), dict):
        return None
    text = message.get("text")
    if not master or str(message["chat"].get("id")) != master or not isinstance(text, str):
        return None
    return text


def answer(text: str, health: Callable[[], dict[str, Any]]) -> str:
    """Return the answer to a text."""
    command = text.split(maxsplit=1)[0].partition("@")[0].lower() if text.split() else ""
    if command == "/status":
        return status(health())
    if command in ("/help", "/start"):
        return HELP
    return "I do not know that yet. /help lists what I do."


def status(found: dict[str, Any]) -> str:
    """Return the agent's health in words."""
    lines = [f"{found['status']}, version {found['version']} ({found['sha'][:7]})"]
    lines += [f"{name}: {check['status']}" for name, check in found["checks"].items()]
    return "\n".join(lines)
