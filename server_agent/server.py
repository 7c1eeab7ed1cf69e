"""What is known of the server: its disk, its memory, its backups and its deployments."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from server_agent.settings import Settings

LITTLE_MEMORY = 5  # per cent
OLD = timedelta(hours=36)  # a backup is taken each day
BACKUP = "backup.json"  # where the pipeline tells of the newest backup
HISTORY = "history.json"  # and of its deployments
SHOWN = 5  # of them
LARGEST = 1 << 20  # bytes of a file that we are told something in

RESTART = "restart"
PRUNE = "prune"


COMPLAINTS = {
    "disk": "The disk is nearly full",
    "memory": "Memory is nearly used up",
    "backup": "The newest backup is old",
}


@dataclass(frozen=True)
class Fact:
    """What is known of something, in words, and whether that is as it should be."""

    text: str
    is_well: bool = True

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Finding:
    """Something that the Master should know."""

    topic: str  # what it is about; while that lasts he is told once
    text: str
    action: str = ""  # what could be done about it; empty: nothing


def findings(
    settings: Settings, containers: Mapping[str, str], now: datetime
) -> tuple[Finding, ...]:
    """Return what is not as it should be, given what the engine says of containers that failed."""
    tidy_up = PRUNE if settings.engine_url else ""
    failed = (
        Finding(name, f"Container {name} has failed: {status}.", RESTART)
        for name, status in containers.items()
    )
    bad = (
        Finding(name, f"{COMPLAINTS[name]}: {fact}.", tidy_up if name == "disk" else "")
        for name, fact in facts(settings, now).items()
        if not fact.is_well
    )
    return (*failed, *bad)


def facts(settings: Settings, now: datetime) -> dict[str, Fact]:
    """Return what is known of the server, by name."""
    version = f"version {settings.version} ({settings.vcs_ref[:7]}), built {settings.build_date}"
    found = {
        "disk": disk_of(settings.data_dir, settings.disk_free_percent),
        "memory": memory_of(_text(Path("/proc/meminfo"))),
        "backup": backup_of(_text(Path(settings.facts_dir, BACKUP)), now),
        "deployment": Fact(version),
    }
    return {name: fact for name, fact in found.items() if fact}


def disk_of(folder: str, little: int) -> Fact | None:
    """Return how much of a folder's disk is free for us."""
    with suppress(OSError):
        found = shutil.disk_usage(folder)
        return _share(found.free, found.total, little)
    return None


def memory_of(text: str) -> Fact | None:
    """Given /proc/meminfo, return how much memory is free."""
    found = dict(re.findall(r"^(\w+): +(\d{1,15}) kB$", text, re.MULTILINE))
    if "MemTotal" not in found or "MemAvailable" not in found:
        return None
    return _share(int(found["MemAvailable"]) << 10, int(found["MemTotal"]) << 10, LITTLE_MEMORY)


def _share(free: int, whole: int, little: int) -> Fact | None:
    if not whole:
        return None
    said = f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB free"
    return Fact(said, is_well=100 * free / whole >= little)


def backup_of(text: str, now: datetime) -> Fact | None:
    """Given what the pipeline tells of the newest backup, return it; None for garbage."""
    try:
        data = json.loads(text)
        at = datetime.fromisoformat(data["at"])
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        name, state = str(data.get("name", ""))[:100], str(data.get("state", ""))[:40]
    except (ValueError, RecursionError, TypeError, KeyError, OverflowError):
        return None
    return Fact(f"{name}, {at:%Y-%m-%d %H:%M} UTC, {state}", is_well=now - at <= OLD)


def deployments(folder: str) -> str:
    """Return the last deployments, the newest first, a line each; or why there are none."""
    if not folder:
        return "Nobody tells me of deployments: FACTS_DIR is not set."
    try:
        found = json.loads(_read(Path(folder) / HISTORY))
    except FileNotFoundError:
        return f"I was told of no deployment yet: there is no {HISTORY}."
    except (OSError, ValueError, RecursionError) as error:
        return f"{HISTORY} cannot be read: {type(error).__name__}."
    if not isinstance(found, list):
        return f"{HISTORY} holds no list of deployments."
    return "\n".join(_line(item) for item in found[:SHOWN]) or "There was no deployment yet."


def _line(record: Any) -> str:
    def word(name: str, most: int = 40) -> str:
        value = record.get(name) if isinstance(record, dict) else None
        return " ".join(("?" if value is None else str(value)).split())[:most]

    made = f"{word('started', 16)} {word('kind')} {word('ref')} ({word('sha', 7)})"
    return f"{made}: {word('outcome')} (code {word('code')}), {word('seconds', 6)} s, {word('who')}"


def _text(path: Path) -> str:
    with suppress(OSError):
        return _read(path)
    return ""


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(LARGEST)
