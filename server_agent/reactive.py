"""The reactive worker: answers what the Master says, exactly once, and tells what waits."""

from __future__ import annotations

import logging
from dataclasses import replace

from psycopg2.extensions import cursor

from server_agent import commands, decisions, events, notices, store, telegram
from server_agent.commands import Context
from server_agent.events import Pressed
from server_agent.store import Row, Store
from server_agent.telegram import TelegramError

IDLE = 1.0  # seconds between two looks when nothing wakes it

log = logging.getLogger("server_agent.reactive")


def step(updates: Store, context: Context) -> float:
    """Handle the next update, without one the next notice; return the seconds to wait then."""
    for queue in (store.UPDATES, notices.QUEUE):
        with updates.next_in(queue) as waiting:
            if waiting is not None:
                _handle(*waiting, context)
                return 0.0
    return IDLE


def _handle(found: cursor, row: Row, context: Context) -> None:
    name = f"{row.queue.name} {row.id}"
    try:
        if row.queue is notices.QUEUE:
            state = notices.send(found, row, context.settings)
        else:
            state = answer(found, row.content[0], replace(context, update=row.id))
    except TelegramError as error:
        pause = telegram.pause_after(error, row.attempts)
        if pause is not None:
            log.warning("%s postponed by %s s: %s", name, pause, error.why)
            store.postpone(found, row, pause)
            return
        log.warning("%s given up: %s", name, error.why)
        state = "failed"
    store.settle(found, row, state)
    log.info("%s %s", name, state)


def answer(found: cursor, payload: dict[str, object], context: Context) -> str:
    """Answer an update, which the transaction has locked; return its next state.

    Raises:
        TelegramError: The answer was not accepted.
        psycopg2.Error: The database is gone.
    """
    settings = context.settings
    event = events.read(payload, settings.master_chat_id)
    if event is None or not settings.telegram_token:
        log.info("update %s is not from the Master, or nothing to answer", context.update)
        return "ignored"
    if isinstance(event, Pressed):
        told = decisions.press(settings, context.store, event, context.update)
        telegram.answer_callback(settings, event.id, told)
    else:
        told = commands.answer(context, event.text)
        found.execute("select 1")  # a model thinks for long: do we have the update still?
        telegram.send_message(settings, settings.master_chat_id, told)
    return "answered"
