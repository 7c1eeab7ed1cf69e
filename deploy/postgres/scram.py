"""A password as PostgreSQL keeps it, so that the password itself never travels in SQL."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from deploy.command import Command, script
from deploy.outcome import Invalid

ROUNDS = 4096  # PostgreSQL's own
ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")
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


def change(container: str, role: str, password: str, salt: bytes) -> Command:
    """Return the command that gives a role another password; connections that are open stay.

    Args:
        container: The server's.
        role: The role.
        password: The password.
        salt: Random bytes.

    Raises:
        Invalid: The role's name is unusual, and would have to be quoted.
    """
    if not ROLE.fullmatch(role):
        raise Invalid(
            "The database's role has a name that is not changed by itself",
            where="DATABASE_URL",
            next_step="ALTER ROLE by hand, correct .env on the host, then deploy",
        )
    sql = f"alter role \"{role}\" password '{verifier(password, salt)}';\n"
    return script(ALTER, container, stdin=sql.encode())
