"""What the agent is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
        ValueError: DATABASE_URL is missing, or PORT is no number.
    """
    url = environ.get("DATABASE_URL", "")
    if not url:
        raise ValueError("DATABASE_URL is not set")
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
        log_level=environ.get("LOG_LEVEL", "") or "INFO",
        host=environ.get("HOST", "") or "0.0.0.0",  # noqa: S104 - see above
        port=int(environ.get("PORT", "") or 8000),
    )
