"""Looks at the server: what is short, what has failed, and what could be done about it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from server_agent.settings import Settings

OURS = re.compile(r"server_agent_vnext_[a-z0-9_]+")  # the containers that we may restart
LITTLE_MEMORY = 5  # per cent
OLD = timedelta(hours=36)  # a backup is taken each day
LARGEST = 64 * 1024  # bytes of a file that we are told something in
LIVE_NAME = "deploy.live-name"  # what the pipeline says that a release's container is called
ONE_OFF = "com.docker.compose.oneoff"  # what Compose gives to a container that ends by itself

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
    """Look at the server, and return what is not as it should be.

    Args:
        settings: Where to look, and what is little.
        containers: Those that have failed, and how the engine puts it.
        now: The time.
    """
    result = [
        Finding(name, f"Container {name} has failed: {status}.", RESTART)
        for name, status in containers.items()
    ]
    disk, memory, backup = (
        disk_of(settings.data),
        memory_of(_read("/proc/meminfo")),
        _newest(settings),
    )
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
    release = f"version {settings.version} ({settings.sha[:7]}), built {settings.build_date}"
    found = {
        "disk": disk_of(settings.data),
        "memory": memory_of(_read("/proc/meminfo")),
        "backup": _newest(settings),
        "deployment": release,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def disk_of(folder: str) -> Share | None:
    """Return how much of a folder's disk is free for us."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    share = Share(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
    return share if share.whole else None


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


def failed(answer: Any) -> dict[str, str]:
    """Given the engine's list of containers, return the status of those of ours that have failed.

    A release that is not the live one is the pipeline's business, whatever state it is in.
    """
    result = {}
    for item in answer if isinstance(answer, list) else ():
        found = item if isinstance(item, dict) else {}
        names, labels = found.get("Names"), found.get("Labels")
        name = str(names[0]).removeprefix("/") if isinstance(names, list) and names else ""
        status = str(found.get("Status"))[:100]
        bad = _is_bad(str(found.get("State")), status)
        if (
            bad
            and OURS.fullmatch(name)
            and _stays(name, labels if isinstance(labels, dict) else {})
        ):
            result[name] = status
    return result


def _stays(name: str, labels: Mapping[str, Any]) -> bool:
    return labels.get(ONE_OFF) != "True" and labels.get(LIVE_NAME, name) == name


def _is_bad(state: str, status: str) -> bool:
    if state == "exited":
        return not status.startswith("Exited (0)")
    return state in ("restarting", "dead") or "(unhealthy)" in status


def _newest(settings: Settings) -> Backup | None:
    return backup_of(_read(str(Path(settings.facts) / "backup.json"))) if settings.facts else None


def _read(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""
