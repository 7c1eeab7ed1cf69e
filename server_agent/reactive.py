"""The reactive worker: answers what the Master says, exactly once, and tells what waits.

An answer is made and kept in one step, and sent in the next: to send it again costs nothing.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
from psycopg2.extensions import cursor

from server_agent import budget, master, proactive, server, telegram, updates
from server_agent.master import Word
from server_agent.model import Model
from server_agent.settings import Settings
from server_agent.store import Row, Store, next_in, settle
from server_agent.telegram import TelegramError
from server_agent.updates import Press

IDLE = 0.2  # seconds between two looks

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
        with rows.transaction() as found:
            if row := next_in(found, queue):
                _handle(found, row, context)
                return 0.0
    return IDLE


def _handle(found: cursor, row: Row, context: Context) -> None:
    pause = None
    try:
        if row.queue is master.QUEUE:
            state = master.send(found, row, context.settings)
        else:
            state = _answer(found, row, replace(context, update=row.id))
    except TelegramError as error:
        log.warning("%s: %s", row, error.why)
        pause = telegram.pause_after(error, row.attempts)
        state = "failed" if pause is None else "new"
    if state:
        settle(found, row, state, pause or 0.0)
        log.info("%s is %s", row, state)


def _answer(found: cursor, row: Row, context: Context) -> str:
    settings, (payload, made) = context.settings, row.content
    said = updates.heard(payload, settings.master_chat_id)
    if said is None:
        log.info("update %s is not from the Master, or nothing to answer", context.update)
        return "ignored"
    if isinstance(said, Press):
        told = master.press(settings, context.store, said, context.update)
        telegram.answer_callback(settings, said.id, told)
    elif made is None:
        told = telegram.shortened(answer(context, said.text), telegram.LONGEST)
        found.execute(updates.ANSWER, (told, row.id))
        return ""  # it has its next turn at once
    else:
        telegram.send_message(settings, settings.master_chat_id, made)
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
        return context.model.answer(text.strip(), server.facts(context.settings))
    except (TelegramError, psycopg2.OperationalError, psycopg2.InterfaceError):
        raise
    # Whatever is wrong with a command, it must stop neither the others nor this answer.
    except Exception:
        log.exception("update %s: no answer could be made", context.update)
        return "Something went wrong here; the log says what."


def _status(context: Context) -> str:
    found = context.health()
    lines = [f"{found['status']}, version {found['version']} ({found['sha'][:7]})"]
    lines += [f"{name}: {check['status']}" for name, check in found["checks"].items()]
    facts = server.facts(context.settings)
    lines += [f"{fact.wrong or name}: {fact}" for name, fact in facts.items()]
    return "\n".join(lines)


def _budget(context: Context) -> str:
    periods = context.store.run(lambda found: budget.current(found, context.settings))
    return "\n".join(budget.line(period) for period in periods)


def _deploy(context: Context) -> str:
    if not context.settings.deploy_url:
        return "I know nobody who deploys: DEPLOY_URL is not set."
    branch, when = context.settings.deploy_branch, proactive.ANSWER
    text = f"The newest commit of {branch}. {proactive.QUESTIONS[server.DEPLOY]}"
    asked = context.store.run(lambda it: master.ask(it, server.DEPLOY, branch, text, when))
    return f"That is request {asked}." if asked else "I have asked you that already."


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
    "/deployments": ("- the last five", lambda it: server.deployments(it.settings)),
    "/deploy": ("- have the newest commit deployed, once you say yes", _deploy),
    "/approve": ("NUMBER - yes to a request", lambda it: _decide(it, "approved")),
    "/reject": ("NUMBER - no to one", lambda it: _decide(it, "rejected")),
    "/help": ("- this text", _help),
    "/start": ("", _help),
}
