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
    select id from approvals where state = 'open' and expires_at <= now()
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
select id, state, coalesce(decided_at, ended_at, expires_at),
    coalesce(decided_by = %(update)s, false), text, message_id
from approvals where id = %(id)s and digest = coalesce(%(digest)s, digest)
"""


@dataclass(frozen=True)
class Request:
    """A request as it stands: since when, and whether the update in question decided it."""

    id: int
    state: str
    at: datetime
    decided: bool
    text: str
    message: int | None  # the number of the message that asks, where it is known


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


def expire(found: cursor) -> None:
    """Close the requests whose time is over."""
    found.execute(EXPIRE)


def decide(
    found: cursor, verdict: str, number: int, update: int, digest: str | None
) -> Request | None:
    """Decide a request where it is open; return it as it stands then, None: there is none.

    Args:
        found: The transaction.
        verdict: `approved` or `rejected`.
        number: The request's number.
        update: The update that says so; tried again, it has decided still, and does not again.
        digest: What the button says the request was; None: only its number was named.
    """
    expire(found)
    given = {"verdict": verdict, "id": number, "update": update, "digest": digest}
    found.execute(DECIDE, given)
    found.execute(LOOK, given)
    row = found.fetchone()
    return Request(*row) if row else None


def digest_of(*words: str) -> str:
    """Return what tells a request from any other: 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
