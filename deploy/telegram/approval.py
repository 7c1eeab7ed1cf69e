"""What the Master is asked before a deployment, and what counts as his word. Nothing runs here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.telegram.notify import LONGEST, shortened

FOOT = 200  # UTF-16 code units that are kept for what is added to the text
MOST_COMMITS = 10
MOST_OPERATIONS = 15
LONGEST_LINE = 120
DECISIONS = {"approve": "approved", "reject": "rejected"}
PRESSED = re.compile(r"(approve|reject):([0-9]{1,18}):([0-9a-f]{16})")
TYPED = re.compile(r"/(approve|reject)(?:@[A-Za-z0-9_]+)?\s+([0-9]{1,18})\s*")
CLOSED = {
    "approved": "✅ Approved.",
    "rejected": "❌ Rejected.",
    "timed out": "⌛ Nobody has decided in time.",
    "withdrawn": "Withdrawn: the run has ended.",
}


@dataclass(frozen=True)
class Proposal:
    """A deployment, as the Master is shown it.

    Args:
        title: What is deployed.
        host: Where to.
        run: The run.
        until: When it is too late, as text.
        ref: What was asked for.
        sha: The commit.
        live: The release that serves now, empty for none.
        commits: The newest that are not live, a line each; None when nobody can say.
        more: How many beside these.
        lost: How many live ones it lacks.
        who: Who started it.
        tests: What the tests said.
        rehearsal: What the rehearsal of the migrations said.
        pending: The migrations that wait.
        operations: What the migrations do that is worth a look.
    """

    title: str
    host: str
    run: str
    until: str
    ref: str
    sha: str
    live: str
    commits: Sequence[str] | None
    more: int
    lost: int
    who: str
    tests: str
    rehearsal: str
    pending: str
    operations: Sequence[str]


@dataclass(frozen=True)
class Request:
    """What the Master is asked.

    Args:
        number: What commands call it.
        digest: 16 hexadecimal digits over all that he is shown.
        text: That.
    """

    number: int
    digest: str
    text: str


@dataclass(frozen=True)
class Posted:
    """The message that asks him: its chat, its number, and when the Bot API says it was sent."""

    chat: int
    message: int
    at: int


@dataclass(frozen=True)
class Heard:
    """What he decided, and the press that said so; that is empty when he typed it."""

    decision: str
    press: str = ""


def shown(proposal: Proposal) -> str:
    """Return the text that the Master decides on."""
    lines = [
        f"🔔 Deploy {proposal.title} to {proposal.host}?",
        "",
        f"Until: {proposal.until}",
        f"Ref: {proposal.ref}",
        f"Commit: {proposal.sha[:12]}",
        f"Live: {proposal.live or 'nothing yet'}",
        *_commits(proposal),
        f"By: {proposal.who}",
        f"Tests: {proposal.tests}",
        f"Rehearsal: {proposal.rehearsal}",
        f"Pending migrations: {proposal.pending}",
        *[f"Migration: {line}" for line in proposal.operations[:MOST_OPERATIONS]],
        *_more(len(proposal.operations) - MOST_OPERATIONS),
        f"Run: {proposal.run}",
    ]
    return shortened("\n".join(map(_plain, lines)), LONGEST - FOOT)


def _commits(proposal: Proposal) -> list[str]:
    if not proposal.live:
        return []
    if proposal.commits is None:
        return ["Commits since then: unknown, what is live is not in this repository"]
    count = len(proposal.commits) + proposal.more
    lines = [f"Commits since then: {count}", *(f"• {line}" for line in proposal.commits)]
    lines += _more(proposal.more)
    return [*lines, f"Live commits that it lacks: {proposal.lost}"] if proposal.lost else lines


def _more(count: int) -> list[str]:
    return [f"… and {count} more"] if count > 0 else []


def _plain(line: str) -> str:
    # What turns the direction of writing, say, could make a line look like another.
    words = "".join(letter if letter.isprintable() else " " for letter in line).split()
    text = " ".join(words)
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…"


def digest_of(text: str) -> str:
    """Return what tells a request from any other: 16 hexadecimal digits over what is shown."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def question(request: Request) -> dict[str, Any]:
    """Return the message that asks, with its buttons, as the Bot API takes it."""
    number = request.number
    buttons = [
        {"text": text, "callback_data": f"{word}:{number}:{request.digest}"}
        for text, word in (("✅ Approve", "approve"), ("❌ Reject", "reject"))
    ]
    foot = f"Request {number}: /approve {number} or /reject {number}"
    return {
        "text": f"{request.text}\n\n{foot}",
        "reply_markup": {"inline_keyboard": [buttons]},
    }


def closed(request: Request, decision: str) -> str:
    """Return what the message says when nothing can be decided any more."""
    return f"{request.text}\n\n{CLOSED[decision]}"


def posted(result: Any) -> Posted | None:
    """Given what the Bot API returned for a message, return where it is; None for garbage."""
    found = (_at(result, "chat", "id"), _at(result, "message_id"), _at(result, "date"))
    chat, message, at = (item if type(item) is int else None for item in found)
    if chat is None or message is None or at is None:
        return None
    return Posted(chat, message, at)


def judge(update: Any, request: Request, message: Posted) -> Heard | None:
    """Return what an update decides about a request, None for nothing.

    A press must come from the Master's chat and name the request's number and digest; a command
    must come from there, name the number, and be younger than the request.

    Args:
        update: What the Bot API says it is, which may be anything.
        request: What he was asked.
        message: Where.
    """
    press, typed = _at(update, "callback_query"), _at(update, "message")
    if press is not None:
        found = _match(PRESSED, _at(press, "data"))
        same = _is(_at(press, "message", "chat", "id"), message.chat)
        name = _at(press, "id")
        if not found or not same or found[3] != request.digest or not isinstance(name, str):
            return None
    else:
        found = _match(TYPED, _at(typed, "text"))
        same = _is(_at(typed, "chat", "id"), message.chat)
        name, at = "", _at(typed, "date")
        if not found or not same or type(at) is not int or at < message.at:
            return None
    return Heard(DECISIONS[found[1]], name) if int(found[2]) == request.number else None


def _match(pattern: re.Pattern[str], text: Any) -> re.Match[str] | None:
    return pattern.fullmatch(text) if isinstance(text, str) else None


def _is(value: Any, wanted: int) -> bool:
    return type(value) is int and value == wanted  # to Python, true is a number


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
