"""What the Master is asked: each request once, bound to what he was shown, for a limited time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor

from server_agent import notices

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


def ask(found: cursor, kind: str, subject: str, text: str, seconds: float) -> int | None:
    """Ask the Master; return the request's number, None when the same is open already.

    Args:
        found: The transaction.
        kind: What is to be done.
        subject: What to; one request of a kind and subject is open at a time.
        text: What the Master reads.
        seconds: How long he has.
    """
    expire(found)
    found.execute(ASK, (kind, subject, digest_of(kind, subject, text), text, seconds))
    row = found.fetchone()
    if row is None:
        return None
    notices.add(found, f"{text}\n\nRequest {row[0]}: /approve {row[0]} or /reject {row[0]}", row[0])
    return int(row[0])


def expire(found: cursor, number: int | None = None) -> None:
    """Close the requests whose time is over, all or the one with a number."""
    found.execute(EXPIRE, (number,))


def decide(found: cursor, word: Word) -> Request | None:
    """Decide a request where it is open; return it as it stands then, None: there is none."""
    found.execute(DECIDE, vars(word))
    expire(found, word.id)
    found.execute(LOOK, vars(word))
    row = found.fetchone()
    return Request(*row) if row else None


def digest_of(*words: str) -> str:
    """Return what tells a request from any other: 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
