"""The Master's word on a request: written down first, shown in its message afterwards."""

from __future__ import annotations

import logging
import re
from datetime import UTC

from server_agent import approvals, telegram
from server_agent.approvals import Word
from server_agent.events import Pressed
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError

BUTTON = re.compile(r"(approve|reject):([0-9]{1,18}):([0-9a-f]{16})")
UNDECIDED = ("expired", "withdrawn")
VERDICTS = {"approve": "approved", "reject": "rejected"}

log = logging.getLogger("server_agent.reactive")


def press(settings: Settings, store: Store, pressed: Pressed, update: int) -> str:
    """Let a button decide what it is about; return what to tell the Master, as `hear` does."""
    found = BUTTON.fullmatch(pressed.data)
    if found is None:
        return "I do not know this button."
    word = Word(VERDICTS[found[1]], int(found[2]), update, found[3], pressed.message)
    return hear(settings, store, word)


def hear(settings: Settings, store: Store, word: Word) -> str:
    """Let the Master's word decide a request; return what to tell him.

    The decision is committed before anything is shown, and stands whatever becomes of that.

    Raises:
        TelegramError: The message that asks cannot be changed now.
        psycopg2.Error: The database is gone.
    """
    with store.transaction() as found:
        request = approvals.decide(found, word)
    if request is None:
        log.warning("update %s: there is no request %s like that", word.update, word.id)
        return f"There is no such request: {word.id}."
    state = word.verdict if request.decided else request.state
    log.info("update %s: request %s is %s", word.update, word.id, state)
    if request.decided or state in UNDECIDED:
        what = f"{state.capitalize()} by the Master" if request.decided else state.capitalize()
        at = f"{request.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        _show(settings, word.message or request.message, f"{request.text}\n\n{what}, {at}")
    return f"Request {word.id} is {'' if request.decided else 'open no more: '}{state}."


def _show(settings: Settings, message: int | None, text: str) -> None:
    if not message:
        return
    try:
        telegram.edit_message(settings, settings.master_chat_id, message, text)
    except TelegramError as error:
        # Final: the message is gone, or reads like this already.
        if not error.final:
            raise
        log.warning("message %s stays as it is: %s", message, error.why)
