"""One JSON object a line, on stdout and in files, without secrets."""

import fcntl
import json
import logging
import sys
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

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


class SharedFile(logging.Handler):
    """Appends to a file that other processes append to as well, and rotates it by size.

    Each line opens the file and is one write, so that no line is lost or torn while another
    process rotates, and nobody waits for anybody: who cannot have the lock lets the other do it.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        super().__init__()
        self._path = path
        self._largest = largest

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; stdout has it too, so that a full disk is no error here."""
        line = f"{self.format(record)}\n".encode(errors="replace")
        with suppress(OSError), self._path.open("ab", buffering=0) as file:
            file.write(line)
            if file.tell() > self._largest:
                self._rotate()

    def _rotate(self) -> None:
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._path.stat().st_size <= self._largest:
                return
            names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, KEPT + 1))]
            for newer, older in reversed(list(pairwise(names))):
                if newer.exists():
                    newer.replace(older)


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Return the values that must not be seen, the longest first."""
    password = parse_dsn(settings.database_url).get("password", "")
    shy = {getattr(settings, field.name) for field in fields(settings) if not field.repr}
    found = {*shy, password, quote(password, safe="")}
    return tuple(sorted((item for item in found if len(item) >= SHORTEST), key=len, reverse=True))


def configure(settings: Settings) -> None:
    """Send every logger's records to stdout, and to files when there is a folder for them."""
    files = files_in(Path(settings.log_dir)) if settings.log_dir else []
    handlers = [logging.StreamHandler(sys.stdout), *files]
    formatter = JsonLines(secrets_of(settings))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    if settings.log_dir and not files:
        logging.getLogger("server_agent").warning("no log can be written to %s", settings.log_dir)


def files_in(folder: Path) -> list[logging.Handler]:
    """Return what writes the log files of a folder; nothing when it cannot be written to."""
    found: list[logging.Handler] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.log").open("ab").close()
    except OSError:
        return found
    for name in FILES:
        handler = SharedFile(folder / f"{name}.log")
        handler.addFilter(logging.Filter("" if name == "app" else f"server_agent.{name}"))
        found.append(handler)
    return found
