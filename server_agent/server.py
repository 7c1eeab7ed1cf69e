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
HISTORY = "history.json"  # where the pipeline tells of its deployments
SHOWN = 5  # of them
LARGEST = 1 << 20  # bytes of a file that we are told something in

RESTART = "restart"
PRUNE = "prune"


@dataclass(frozen=True)
class Share:
    """How much of something is free, in bytes."""

    free: int
    whole: int

    @property
    def percent(self) -> float:
        """Return the free per cent."""
        return 100 * self.free / self.whole

    def __str__(self) -> str:
        return f"{self.free / 2**30:.1f} of {self.whole / 2**30:.1f} GiB free"


@dataclass(frozen=True)
class Backup:
    """The newest backup."""

    name: str
    at: datetime
    state: str

    def __str__(self) -> str:
        return f"{self.name}, {self.at:%Y-%m-%d %H:%M} UTC, {self.state}"


@dataclass(frozen=True)
class Finding:
    """Something that the Master should know.

    Args:
        topic: What it is about; while that lasts he is told once.
        text: What he reads.
        action: What could be done about it; empty: nothing.
    """

    topic: str
    text: str
    action: str = ""


def findings(
    settings: Settings, containers: Mapping[str, str], now: datetime
) -> tuple[Finding, ...]:
    """Return what is not as it should be.

    Args:
        settings: Where to look, and what is little.
        containers: Those that have failed, and how the engine puts it.
        now: The time.
    """
    result = [
        Finding(name, f"Container {name} has failed: {status}.", RESTART)
        for name, status in containers.items()
    ]
    disk, memory, backup = disk_of(settings.data_dir), _memory(), _newest_backup(settings)
    if disk and disk.percent < settings.disk_free_percent:
        action = PRUNE if settings.engine_url else ""
        result.append(Finding("disk", f"The disk is nearly full: {disk}.", action))
    if memory and memory.percent < LITTLE_MEMORY:
        result.append(Finding("memory", f"Memory is nearly used up: {memory}."))
    if backup and now - backup.at > OLD:
        result.append(Finding("backup", f"The newest backup is old: {backup}."))
    return tuple(result)


def facts(settings: Settings) -> Mapping[str, str]:
    """Return what is known of the server, in words, by name."""
    version = f"version {settings.version} ({settings.vcs_ref[:7]}), built {settings.build_date}"
    found = {
        "disk": disk_of(settings.data_dir),
        "memory": _memory(),
        "backup": _newest_backup(settings),
        "deployment": version,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def disk_of(folder: str) -> Share | None:
    """Return how much of a folder's disk is free for us."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None
    return Share(found.free, found.total) if found.total else None


def memory_of(text: str) -> Share | None:
    """Given /proc/meminfo, return how much memory is free."""
    found = dict(re.findall(r"^(\w+): +(\d{1,15}) kB$", text, re.MULTILINE))
    if not int(found.get("MemTotal", 0)) or "MemAvailable" not in found:
        return None
    return Share(int(found["MemAvailable"]) * 1024, int(found["MemTotal"]) * 1024)


def backup_of(text: str) -> Backup | None:
    """Given what the pipeline tells of the newest backup, return it; None for garbage."""
    try:
        data = json.loads(text)
        at = datetime.fromisoformat(data["at"])
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, RecursionError, TypeError, KeyError, OverflowError):
        return None
    return Backup(str(data.get("name", ""))[:100], at, str(data.get("state", ""))[:40])


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


def _memory() -> Share | None:
    with suppress(OSError):
        return memory_of(_read(Path("/proc/meminfo")))
    return None


def _newest_backup(settings: Settings) -> Backup | None:
    with suppress(OSError):
        return backup_of(_read(Path(settings.facts_dir) / "backup.json"))
    return None


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(LARGEST)
