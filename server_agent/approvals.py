"""What the Master is asked: each request once, bound to what he was shown, for a limited time."""

from __future__ import annotations

import hashlib

from psycopg2.extensions import cursor

from server_agent import notices

ASK = """
insert into approvals (kind, subject, digest, text, expires_at)
values (%s, %s, %s, %s, now() + make_interval(secs => %s))
on conflict (kind, subject) where state in ('open', 'approved', 'running') do nothing
returning id
"""


def ask(found: cursor, kind: str, subject: str, text: str, seconds: float) -> int | None:
    """Ask the Master; return the request's number, None when the same is open already.

    Args:
        found: The transaction.
        kind: What is to be done.
        subject: What to; one request of a kind and subject is open at a time.
        text: What the Master reads.
        seconds: How long he has.
    """
    found.execute(ASK, (kind, subject, digest_of(kind, subject, text), text, seconds))
    row = found.fetchone()
    if row is None:
        return None
    notices.add(found, f"{text}\n\nRequest {row[0]}: /approve {row[0]} or /reject {row[0]}", row[0])
    return int(row[0])


def digest_of(*words: str) -> str:
    """Return what tells a request from any other: 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
