"""One JSON object a line, on stdout and in files, without secrets."""

import json
import logging
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from concurrent_log_handler import ConcurrentRotatingFileHandler as RotatingFile
from psycopg2.extensions import parse_dsn

from server_agent.settings import Settings

SHORTEST = 4  # masking shorter values would shred ordinary text
LARGEST = 10 * 1024 * 1024  # bytes of a file; then it is started anew
KEPT = 5  # files from before, of each
FILES = ("app", "telegram", "reactive", "proactive")  # app has all, the others their own


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
    shy = {getattr(settings, field.name) for field in fields(settings) if not field.repr}
    found = {*shy, password, quote(password, safe="")}
    return tuple(sorted((item for item in found if len(item) >= SHORTEST), key=len, reverse=True))


def configure(settings: Settings) -> None:
    """Send every logger's records to stdout, and to files when there is a folder for them."""
    # A full disk is no error: stdout has it too. And errors of logging quote a record unmasked.
    logging.raiseExceptions = False
    files = files_in(Path(settings.log_dir)) if settings.log_dir else []
    handlers = [logging.StreamHandler(sys.stdout), *files]
    formatter = JsonLines(secrets_of(settings))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    if settings.log_dir and not files:
        logging.getLogger("server_agent").warning("no log can be written to %s", settings.log_dir)


def files_in(folder: Path) -> list[logging.Handler]:
    """Return what writes the log files of a folder; nothing when it cannot be written to.

    Other processes may write them as well: who rotates or writes holds a lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # there is one to read before anything is said
            (folder / f"{name}.log").touch()
        files = {name: RotatingFile(folder / f"{name}.log", "a", LARGEST, KEPT) for name in FILES}
    except OSError:
        return []
    for name, handler in files.items():
        handler.addFilter(logging.Filter("" if name == "app" else f"server_agent.{name}"))
    return list(files.values())
