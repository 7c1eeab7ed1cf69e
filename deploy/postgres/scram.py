"""Two roles in turn, and a password as PostgreSQL keeps it, so that none ever travels in SQL."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from deploy.command import Command, script
from deploy.outcome import Invalid

ROUNDS = 4096  # PostgreSQL's own
SECOND = "_b"  # what the second role's name ends with
ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,60}")
# Whoever comes by the second role is the first one from then on: to it all belongs.
STAND_IN = """
do $$ begin create role "%(second)s"; exception when duplicate_object then null; end $$;
grant "%(first)s" to "%(second)s";
alter role "%(second)s" set role "%(first)s";
"""
# A role that is not there is none that is let in.
CLOSE = """
do $$ begin alter role "%(role)s" password null; exception when undefined_object then null; end $$;
"""
# By the socket, as the server's owner: there no password is asked for.
ALTER = """
docker exec --interactive "$1" sh -c '
  exec psql -X -w -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres'
"""


def verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL keeps of a password (RFC 5802, RFC 7677).

    Args:
        password: The password.
        salt: Random bytes.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    kept, stored, key = (
        base64.b64encode(item).decode() for item in (salt, hashlib.sha256(client).digest(), server)
    )
    return f"SCRAM-SHA-256${ROUNDS}:{kept}${stored}:{key}"


def other(role: str) -> str:
    """Return the role that is in turn after a role.

    Raises:
        Invalid: Its name is unusual, and would have to be quoted.
    """
    first = role.removesuffix(SECOND)
    if not ROLE.fullmatch(first):
        raise Invalid(
            "The database's role has a name that is not changed by itself",
            where="DATABASE_URL",
            next_step="ALTER ROLE by hand, correct .env on the host, then deploy",
        )
    return first if role != first else f"{first}{SECOND}"


def open_for(container: str, role: str, password: str, salt: bytes) -> Command:
    """Return the command that lets a role in by a password, and makes it when it is the second.

    Args:
        container: The server's.
        role: The role, as `other` names it.
        password: The password.
        salt: Random bytes.
    """
    first = role.removesuffix(SECOND)
    made = STAND_IN % {"first": first, "second": role} if role != first else ""
    kept = verifier(password, salt)
    sql = f"begin;{made}\nalter role \"{role}\" login password '{kept}';\ncommit;\n"
    return script(ALTER, container, stdin=sql.encode())


def close_for(container: str, role: str) -> Command:
    """Return the command after which no password lets a role in; who is in already stays."""
    return script(ALTER, container, stdin=(CLOSE % {"role": role}).encode())
