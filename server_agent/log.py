"""One JSON object a line on stdout, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from urllib.parse import quote

from psycopg2.extensions import parse_dsn

from server_agent.settings import Settings

SHORTEST = 4  # masking shorter values would shred ordinary text


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object, and masks what must not be seen."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps({key: self._mask(value) for key, value in line.items()})

    def _mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Return the values that must not be seen, the longest first."""
    password = parse_dsn(settings.database_url).get("password", "")
    found = {
        settings.telegram_token,
        settings.webhook_secret,
        settings.database_url,
        password,
        quote(password, safe=""),
    }
    return tuple(sorted((item for item in found if len(item) >= SHORTEST), key=len, reverse=True))


def configure(settings: Settings) -> None:
    """Send every logger's records to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(secrets_of(settings)))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
