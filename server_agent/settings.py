"""What the agent is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import parse_dsn

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Settings:
    """The agent's settings; secrets do not show in its repr.

    Args:
        database_url: The PostgreSQL database.
        telegram_token: The bot's token, empty: Telegram is disabled.
        telegram_api_base: The Bot API's server.
        master_chat_id: The only chat that gets answers.
        webhook_secret: What Telegram sends along with each update.
        public_url: Where Telegram reaches us; empty: we ask it for updates.
        model_url: An OpenAI-compatible server, up to `/chat/completions`; empty: there is none.
        model_name: The model to ask there.
        model_key: What opens it.
        tokens_per_day: Tokens that may be spent on a day (UTC).
        tokens_per_month: The same in a month.
        engine_url: A door to the Docker engine that lets through what we may do; empty: none.
        facts: The folder where the deployment pipeline tells what it did; empty: it does not.
        data: A folder on the disk that is looked at.
        disk_free_percent: Less free space than this is too little.
        look_seconds: Seconds between two looks at the server.
        log_folder: Where log files are written beside stdout; empty: nowhere.
        sha: The commit we are made of.
        build_date: When.
        version: Its name.
        log_level: What is logged.
        host: The address to listen on.
        port: The port.
    """

    database_url: str = field(repr=False)
    telegram_token: str = field(default="", repr=False)
    telegram_api_base: str = "https://api.telegram.org"
    master_chat_id: str = ""
    webhook_secret: str = field(default="", repr=False)
    public_url: str = ""
    model_url: str = ""
    model_name: str = ""
    model_key: str = field(default="", repr=False)
    tokens_per_day: int = 100_000
    tokens_per_month: int = 1_000_000
    engine_url: str = ""
    facts: str = ""
    data: str = "."
    disk_free_percent: int = 10
    look_seconds: int = 60
    log_folder: str = ""
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
    base = _url(environ, "TELEGRAM_API_BASE") or "https://api.telegram.org"
    if environ.get("PUBLIC_URL") and not environ.get("TELEGRAM_WEBHOOK_SECRET"):
        raise ValueError("PUBLIC_URL is set, but not TELEGRAM_WEBHOOK_SECRET, which guards it")
    return Settings(
        database_url=url,
        telegram_token=environ.get("TELEGRAM_API_TOKEN", ""),
        telegram_api_base=base,
        master_chat_id=environ.get("MASTER_CHAT_ID", ""),
        webhook_secret=environ.get("TELEGRAM_WEBHOOK_SECRET", ""),
        public_url=_url(environ, "PUBLIC_URL"),
        model_url=_url(environ, "MODEL_URL"),
        model_name=environ.get("MODEL_NAME", ""),
        model_key=environ.get("MODEL_API_KEY", ""),
        tokens_per_day=_count(environ, "TOKENS_PER_DAY", 100_000),
        tokens_per_month=_count(environ, "TOKENS_PER_MONTH", 1_000_000),
        engine_url=_url(environ, "ENGINE_URL"),
        facts=environ.get("FACTS_DIR", ""),
        data=environ.get("DATA_DIR", "") or ".",
        disk_free_percent=_count(environ, "DISK_FREE_PERCENT", 10),
        look_seconds=_count(environ, "LOOK_SECONDS", 60),
        log_folder=environ.get("LOG_DIR", ""),
        sha=environ.get("VCS_REF", "") or "unknown",
        build_date=environ.get("BUILD_DATE", "") or "unknown",
        version=environ.get("VERSION", "") or "unknown",
        log_level=level,
        host=environ.get("HOST", "") or "0.0.0.0",  # noqa: S104 - see above
        port=int(port),
    )


def _url(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if value and not value.startswith(("http://", "https://")):
        raise ValueError(f"{name} is no http or https address")
    return value.rstrip("/")


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "") or str(default)
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise ValueError(f"{name} is {value[:40]!r}, not a whole number")
    return int(value)


def _is_address(url: str) -> bool:
    try:
        port = parse_dsn(url).get("port", "")
    except (psycopg2.Error, UnicodeError):
        return False  # libpq's own words quote the address, and so the password
    # A password with an unescaped slash ends up here, and would be quoted in every error.
    return not port or (port.isascii() and port.isdigit())
