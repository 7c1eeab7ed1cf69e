"""The reactive worker: answers what the Master says, exactly once, and tells what waits."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg2
from psycopg2.extensions import cursor

from server_agent import budget, master, server, telegram, updates
from server_agent.master import Word
from server_agent.model import Model
from server_agent.settings import Settings
from server_agent.store import Row, Store, settle
from server_agent.telegram import TelegramError

IDLE = 1.0  # seconds between two looks when nothing wakes it

log = logging.getLogger("server_agent.reactive")


@dataclass(frozen=True)
class Context:
    """What an answer may need."""

    settings: Settings
    store: Store  # on a connection apart from the one that holds the update
    model: Model
    health: Callable[[], dict[str, Any]]
    update: int = 0  # the number of the update that asks
    words: str = ""  # what stands after a command's name


def step(rows: Store, context: Context) -> float:
    """Handle the next update, without one the next notice; return the seconds to wait then."""
    for queue in (updates.QUEUE, master.QUEUE):
        with rows.next_in(queue) as waiting:
            if waiting is not None:
                _handle(*waiting, context)
                return 0.0
    return IDLE


def _handle(found: cursor, row: Row, context: Context) -> None:
    try:
        if row.queue is master.QUEUE:
            state = master.send(found, row, context.settings)
        else:
            state = _answer(found, row.content[0], replace(context, update=row.id))
    except TelegramError as error:
        pause = telegram.pause_after(error, row.attempts)
        if pause is not None:
            log.warning("%s postponed by %s s: %s", row, pause, error.why)
            settle(found, row, "new", pause)
            return
        log.warning("%s given up: %s", row, error.why)
        state = "failed"
    settle(found, row, state)
    log.info("%s %s", row, state)


def _answer(found: cursor, payload: dict[str, Any], context: Context) -> str:
    settings = context.settings
    event = updates.read(payload, settings.master_chat_id)
    if event is None or not settings.telegram_api_token:
        log.info("update %s is not from the Master, or nothing to answer", context.update)
        return "ignored"
    if event.press:
        told = master.press(settings, context.store, event, context.update)
        telegram.answer_callback(settings, event.press, told)
    else:
        told = answer(context, event.text)
        found.execute("select 1")  # a model thinks for long: do we have the update still?
        telegram.send_message(settings, settings.master_chat_id, told)
    return "answered"


def answer(context: Context, text: str) -> str:
    """Return the answer to a text of the Master.

    Raises:
        TelegramError: What belongs to the answer cannot be done now.
        psycopg2.Error: The database is gone.
    """
    name, words = (*text.split(maxsplit=1), "", "")[:2]
    _, run = COMMANDS.get(name.partition("@")[0].lower(), ("", None))
    try:
        if run:
            return run(replace(context, words=words.strip()))
        return context.model.answer(text.strip(), _facts(context))
    except (TelegramError, psycopg2.OperationalError, psycopg2.InterfaceError):
        raise
    # Whatever is wrong with a command, it must stop neither the others nor this answer.
    except Exception:
        log.exception("update %s: no answer could be made", context.update)
        return "Something went wrong here; the log says what."


def _facts(context: Context) -> Mapping[str, object]:
    return server.facts(context.settings, datetime.now(UTC))


def _status(context: Context) -> str:
    found = context.health()
    lines = [f"{found['status']}, version {found['version']} ({found['sha'][:7]})"]
    lines += [f"{name}: {check['status']}" for name, check in found["checks"].items()]
    lines += [f"{name}: {fact}" for name, fact in _facts(context).items()]
    return "\n".join(lines)


def _budget(context: Context) -> str:
    with context.store.transaction() as found:
        periods = budget.current(found, context.settings)
    return "\n".join(budget.line(period) for period in periods)


def _help(_context: Context) -> str:
    lines = [f"{name} {about}" for name, (about, _) in COMMANDS.items() if about]
    return "\n".join(["I look after this server.", *lines])


def _decide(context: Context, verdict: str) -> str:
    number = context.words
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return "Say which request, by its number: /approve 3 or /reject 3."
    word = Word(verdict, int(number), context.update)
    return master.hear(context.settings, context.store, word)


# What the Master can ask for: a command's name, what it is about, what answers it.
COMMANDS: Mapping[str, tuple[str, Callable[[Context], str]]] = {
    "/status": ("- how it is", _status),
    "/budget": ("- what the model may cost, and has", _budget),
    "/deployments": ("- the last five", lambda it: server.deployments(it.settings.facts_dir)),
    "/approve": ("NUMBER - yes to a request", lambda it: _decide(it, "approved")),
    "/reject": ("NUMBER - no to one", lambda it: _decide(it, "rejected")),
    "/help": ("- this text", _help),
    "/start": ("", _help),
}
