"""What the agent is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import parse_dsn

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Settings:
    """The agent's settings; secrets do not show in its repr."""

    database_url: str = field(repr=False)
    telegram_token: str = field(default="", repr=False)
    telegram_api_base: str = "https://api.telegram.org"
    master_chat_id: str = ""
    webhook_secret: str = field(default="", repr=False)
    sha: str = "unknown"
    build_date: str = "unknown"
    version: str = "unknown"
    log_level: str = "INFO"
    host: str = "0.0.0.0"  # noqa: S104 - inside its container; nothing is published
    port: int = 8000


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings that an environment holds.

    Raises:
        ValueError: One of them cannot be used; the text names it, and holds no secret.
    """
    url = environ.get("DATABASE_URL", "")
    if not url:
        raise ValueError("DATABASE_URL is not set")
    if not _is_address(url):
        raise ValueError("DATABASE_URL is no address of a PostgreSQL database")
    level = (environ.get("LOG_LEVEL", "") or "INFO").upper()
    if level not in LEVELS:
        raise ValueError(f"LOG_LEVEL is {level!r}, not one of {', '.join(LEVELS)}")
    port = environ.get("PORT", "") or "8000"
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"PORT is {port!r}, not a number from 1 to 65535")
    base = environ.get("TELEGRAM_API_BASE", "") or "https://api.telegram.org"
    return Settings(
        database_url=url,
        telegram_token=environ.get("TELEGRAM_API_TOKEN", ""),
        telegram_api_base=base.rstrip("/"),
        master_chat_id=environ.get("MASTER_CHAT_ID", ""),
        webhook_secret=environ.get("TELEGRAM_WEBHOOK_SECRET", ""),
        sha=environ.get("VCS_REF", "") or "unknown",
        build_date=environ.get("BUILD_DATE", "") or "unknown",
        version=environ.get("VERSION", "") or "unknown",
        log_level=level,
        host=environ.get("HOST", "") or "0.0.0.0",  # noqa: S104 - see above
        port=int(port),
    )


def _is_address(url: str) -> bool:
    try:
        port = parse_dsn(url).get("port", "")
    except (psycopg2.Error, UnicodeError):
        return False  # libpq's own words quote the address, and so the password
    # A password with an unescaped slash ends up here, and would be quoted in every error.
    return not port or (port.isascii() and port.isdigit())
