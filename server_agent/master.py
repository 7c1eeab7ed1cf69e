"""What the Master is told and asked, and his word on it.

What he is to be told is written down with its cause and sent afterwards. He is asked each request
once; his word is bound to what he was shown, counts for a limited time, and is written down before
it is shown in the message that asked.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg2.extensions import cursor

from server_agent import telegram
from server_agent.settings import Settings
from server_agent.store import Queue, Row, Store
from server_agent.telegram import Button, TelegramError
from server_agent.updates import Pressed

TELL = "insert into notices (text, approval_id) values (%s, %s)"
QUEUE = Queue(
    "notice",
    # The oldest one alone: while it waits for its next try, the younger ones wait behind it.
    next="""
select n.id, n.attempts, n.text, a.id, a.digest, a.state = 'open' and a.expires_at > now()
from notices n left join approvals a on a.id = n.approval_id
where n.id = (select min(id) from notices where state = 'new')
    and n.state = 'new' and n.next_try_at <= now()
for update of n skip locked
""",
    settle="""
update notices set state = %(state)s, attempts = attempts + 1,
    next_try_at = now() + make_interval(secs => %(pause)s),
    sent_at = case when %(state)s = 'sent' then now() end
where id = %(id)s
""",
)
ASK = """
insert into approvals (kind, subject, digest, text, expires_at)
values (%s, %s, %s, %s, now() + make_interval(secs => %s))
on conflict (kind, subject) where state in ('open', 'approved', 'running') do nothing
returning id
"""
EXPIRE = """
update approvals set state = 'expired', ended_at = now() where id in (
    select id from approvals
    where state = 'open' and expires_at <= clock_timestamp() and id = coalesce(%s, id)
    for update skip locked
)
"""
# By the clock, not by the transaction's beginning: the row may have been waited for.
DECIDE = """
update approvals
set state = %(verdict)s, decided_at = clock_timestamp(), decided_by = %(update)s
where id = %(id)s and digest = coalesce(%(digest)s, digest)
    and state = 'open' and expires_at > clock_timestamp()
"""
LOOK = """
select state, coalesce(decided_at, ended_at, expires_at),
    coalesce(decided_by = %(update)s, false), text, message_id
from approvals where id = %(id)s and digest = coalesce(%(digest)s, digest)
"""
MESSAGE = "update approvals set message_id = %s where id = %s"

BUTTON = re.compile(r"(approve|reject):([0-9]{1,18}):([0-9a-f]{16})")
VERDICTS = {"approve": "approved", "reject": "rejected"}

log = logging.getLogger("server_agent.reactive")


@dataclass(frozen=True)
class Word:
    """What the Master said to a request.

    Args:
        verdict: `approved` or `rejected`.
        id: The request's number.
        update: The update that says so; tried again, it decides nothing a second time.
        digest: What the button says the request is; None: he named its number.
        message: The number of the message with that button; 0: unknown.
    """

    verdict: str
    id: int
    update: int
    digest: str | None = None
    message: int = 0


@dataclass(frozen=True)
class Request:
    """A request as it stands: since when, and whether the word in question decided it."""

    state: str
    at: datetime
    decided: bool
    text: str
    message: int | None  # the number of the message that asks, as far as it is known


def tell(found: cursor, text: str, request: int | None = None) -> None:
    """Write down what he is to be told, in the transaction of its cause.

    Args:
        found: The transaction.
        text: Plain text.
        request: What it asks about; it gets the buttons to decide.
    """
    found.execute(TELL, (text, request))


def ask(found: cursor, kind: str, subject: str, text: str, seconds: float) -> int | None:
    """Ask him; return the request's number, None when the same is open already.

    Args:
        found: The transaction.
        kind: What is to be done.
        subject: What to; one request of a kind and subject is open at a time.
        text: What he reads.
        seconds: How long he has.
    """
    expire(found)
    digest = hashlib.sha256(f"{kind}\0{subject}\0{text}".encode()).hexdigest()[:16]
    found.execute(ASK, (kind, subject, digest, text, seconds))
    row = found.fetchone()
    if row is None:
        return None
    tell(found, f"{text}\n\nRequest {row[0]}: /approve {row[0]} or /reject {row[0]}", row[0])
    return int(row[0])


def expire(found: cursor, number: int | None = None) -> None:
    """Close the requests whose time is over, all or the one with a number."""
    found.execute(EXPIRE, (number,))


def send(found: cursor, row: Row, settings: Settings) -> str:
    """Send what is in a row of the queue; return the row's next state."""
    text, request, digest, is_open = row.content
    if not settings.telegram_api_token or not settings.master_chat_id:
        return "dropped"
    if request is None:
        telegram.send_message(settings, settings.master_chat_id, text)
        return "sent"
    if not is_open:
        return "dropped"  # nobody is to press what does nothing
    buttons = (
        Button("✅ Approve", f"approve:{request}:{digest}"),
        Button("❌ Reject", f"reject:{request}:{digest}"),
    )
    number = telegram.send_message(settings, settings.master_chat_id, text, buttons)
    found.execute(MESSAGE, (number or None, request))
    return "sent"


def press(settings: Settings, store: Store, pressed: Pressed, update: int) -> str:
    """Let a button decide what it is about; return what to tell him, as `hear` does."""
    found = BUTTON.fullmatch(pressed.data)
    if found is None:
        return "I do not know this button."
    word = Word(VERDICTS[found[1]], int(found[2]), update, found[3], pressed.message)
    return hear(settings, store, word)


def hear(settings: Settings, store: Store, word: Word) -> str:
    """Let his word decide a request; return what to tell him.

    The decision is committed before anything is shown, and stands whatever becomes of that.
    """
    with store.transaction() as found:
        found.execute(DECIDE, vars(word))
        expire(found, word.id)
        found.execute(LOOK, vars(word))
        row = found.fetchone()
    if row is None:
        log.warning("update %s: there is no request %s like that", word.update, word.id)
        return f"There is no such request: {word.id}."
    request = Request(*row)
    state = word.verdict if request.decided else request.state
    log.info("update %s: request %s is %s", word.update, word.id, state)
    if request.decided or state in ("expired", "withdrawn"):
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
