"""What the Master can ask for: each command a name, what it is about, and a function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg2

from server_agent import budget, decisions, deployments, server
from server_agent.approvals import Word
from server_agent.model import Model
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError

log = logging.getLogger("server_agent.reactive")


@dataclass(frozen=True)
class Context:
    """What a command may need.

    Args:
        settings: The agent's.
        store: The database, on a connection apart from the one that holds the update.
        model: Answers what is no command.
        health: Returns what /health answers.
        update: The number of the update that asks.
        words: What stands after the command's name; of a free text, all of it.
    """

    settings: Settings
    store: Store
    model: Model
    health: Callable[[], dict[str, Any]]
    update: int = 0
    words: str = ""


@dataclass(frozen=True)
class Command:
    """Something that the Master can ask for."""

    about: str
    run: Callable[[Context], str]


def answer(context: Context, text: str) -> str:
    """Return the answer to a text of the Master.

    Raises:
        TelegramError: What belongs to the answer cannot be done now.
        psycopg2.Error: The database is gone.
    """
    words = text.split(maxsplit=1)
    command = COMMANDS.get(words[0].partition("@")[0].lower()) if words else None
    try:
        if command:
            return command.run(replace(context, words="".join(words[1:]).strip()))
        return free_text(replace(context, words=text.strip()))
    except (TelegramError, psycopg2.OperationalError, psycopg2.InterfaceError):
        raise
    # Whatever is wrong with a command, it must stop neither the others nor this answer.
    except Exception:
        log.exception("update %s: no answer could be made", context.update)
        return "Something went wrong here; the log says what."


def free_text(context: Context) -> str:
    """Return the answer to a text that is no command."""
    return context.model.answer(context.words, server.facts(context.settings))


def status(context: Context) -> str:
    """Return the agent's health and what it knows of the server, in words."""
    found = context.health()
    lines = [f"{found['status']}, version {found['version']} ({found['sha'][:7]})"]
    lines += [f"{name}: {check['status']}" for name, check in found["checks"].items()]
    lines += [f"{name}: {fact}" for name, fact in server.facts(context.settings).items()]
    return "\n".join(lines)


def spent(context: Context) -> str:
    """Return what models have cost this day and this month."""
    with context.store.transaction() as found:
        periods = budget.current(found, context.settings)
    return "\n".join(budget.line(period) for period in periods)


def helped(_context: Context) -> str:
    """Return what there is."""
    lines = [f"{name} {item.about}" for name, item in COMMANDS.items() if item.about]
    return "\n".join(["I look after this server.", *lines])


def _decide(context: Context, verdict: str) -> str:
    number = context.words
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return "Say which request, by its number: /approve 3 or /reject 3."
    word = Word(verdict, int(number), context.update)
    return decisions.hear(context.settings, context.store, word)


COMMANDS: Mapping[str, Command] = {
    "/status": Command("- how it is", status),
    "/budget": Command("- what the model may cost, and has", spent),
    "/deployments": Command("- the last five", lambda it: deployments.last(it.settings.facts)),
    "/approve": Command("NUMBER - yes to a request", lambda it: _decide(it, "approved")),
    "/reject": Command("NUMBER - no to one", lambda it: _decide(it, "rejected")),
    "/help": Command("- this text", helped),
    "/start": Command("", helped),
}
