"""What a DATABASE_URL says."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from deploy.outcome import Invalid

# What a URL may say of a connection, by the variable that tells libpq the same. What names a
# file is left out: it is in the application's container, not where we ask from.
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "client_encoding": "PGCLIENTENCODING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


def parameters(url: str) -> dict[str, str]:
    """Given a DATABASE_URL, return what it says of the connection; its query has the last word.

    Raises:
        Invalid: It is no URL, or something in it cannot be told line by line.
    """
    try:
        parts = urlsplit(url)
        given = {
            "host": parts.hostname or "",
            "port": str(parts.port or 5432),
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "dbname": unquote(parts.path.removeprefix("/")),
            **dict(parse_qsl(parts.query, keep_blank_values=True)),
        }
    except ValueError as error:
        raise _unreadable() from error
    if any(character in value for value in given.values() for character in "\n\r\0"):
        raise _unreadable()
    return given


def variables(given: Mapping[str, str]) -> str:
    """Given what a DATABASE_URL says, return the lines that tell libpq the same."""
    known = {VARIABLES[name]: value for name, value in given.items() if name in VARIABLES}
    if known.get("PGSSLMODE", "").startswith("verify-"):
        known["PGSSLMODE"] = "require"  # the certificate to verify by is one of the files
    lines = {**known, "PGCONNECT_TIMEOUT": "5"}
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _unreadable() -> Invalid:
    return Invalid(
        "DATABASE_URL cannot be read",
        where="DATABASE_URL",
        next_step="it must look like postgresql://user:password@host:5432/database",
    )
