"""The server: what is known of it, and what may be done to it.

Its containers are seen and restarted through a door to the Docker engine, which lets nothing
through but what is asked here.
"""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from server_agent import web
from server_agent.settings import Settings
from server_agent.web import Failed

OURS = re.compile(r"server_agent_vnext_[a-z0-9_]+")  # the containers that we may restart
LIVE_NAME = "deploy.live-name"  # what the pipeline says that a release's container is called
ONE_OFF = "com.docker.compose.oneoff"  # what Compose gives to a container that ends by itself
LOOK_TIME = 5.0  # seconds
RESTART_TIME = 40.0  # the same; the engine gives a container ten to end
PRUNE_TIME = 120.0
LOST = frozenset({502, 504})  # what the door says when the engine's answer did not come

LITTLE_MEMORY = 5  # per cent
OLD = timedelta(hours=36)  # a backup is taken each day
BACKUP = "backup.json"  # where the pipeline tells of the newest backup
HISTORY = "history.json"  # and of its deployments
SHOWN = 5  # of them
LARGEST = 1 << 20  # bytes of a file that we are told something in

RESTART = "restart"
PRUNE = "prune"


@dataclass(frozen=True)
class Fact:
    """What is known of something, in words."""

    text: str
    wrong: str = ""  # what is not as it should be; empty: all is well
    action: str = ""  # what could be done about it; empty: nothing

    def __str__(self) -> str:
        return self.text


def findings(settings: Settings, containers: Mapping[str, str], now: datetime) -> dict[str, Fact]:
    """Return what is not as it should be, given what the engine says of containers that failed."""
    failed = {
        name: Fact(status, f"Container {name} has failed", RESTART)
        for name, status in containers.items()
    }
    wrong = {name: fact for name, fact in facts(settings, now).items() if fact.wrong}
    return {**failed, **wrong}


def facts(settings: Settings, now: datetime) -> dict[str, Fact]:
    """Return what is known of the server, by name."""
    version = f"version {settings.version} ({settings.vcs_ref[:7]}), built {settings.build_date}"
    told = _text(Path(settings.facts_dir, BACKUP)) if settings.facts_dir else ""
    found = {
        "disk": disk_of(settings),
        "memory": memory_of(_text(Path("/proc/meminfo"))),
        "backup": backup_of(told, now),
        "deployment": Fact(version),
    }
    return {name: fact for name, fact in found.items() if fact}


def disk_of(settings: Settings) -> Fact | None:
    """Return how much of the disk is free for us."""
    full = Fact("", "The disk is nearly full", PRUNE if settings.engine_url else "")
    with suppress(OSError):
        found = shutil.disk_usage(settings.data_dir)
        return _share(found.free, found.total, settings.disk_free_percent, full)
    return None


def memory_of(text: str) -> Fact | None:
    """Given /proc/meminfo, return how much memory is free."""
    found = dict(re.findall(r"^(\w+): +(\d{1,15}) kB$", text, re.MULTILINE))
    if "MemTotal" not in found or "MemAvailable" not in found:
        return None
    free, whole = int(found["MemAvailable"]) << 10, int(found["MemTotal"]) << 10
    return _share(free, whole, LITTLE_MEMORY, Fact("", "Memory is nearly used up"))


def _share(free: int, whole: int, little: int, short: Fact) -> Fact | None:
    if not whole:
        return None
    text = f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB free"
    return replace(short, text=text) if 100 * free / whole < little else Fact(text)


def backup_of(text: str, now: datetime) -> Fact | None:
    """Given what the pipeline tells of the newest backup, return it; None for garbage."""
    try:
        data = json.loads(text)
        at = datetime.fromisoformat(data["at"])
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        name, state = str(data.get("name", ""))[:100], str(data.get("state", ""))[:40]
    except (ValueError, RecursionError, TypeError, KeyError, OverflowError):
        return None
    wrong = "The newest backup is old" if now - at > OLD else ""
    return Fact(f"{name}, {at:%Y-%m-%d %H:%M} UTC, {state}", wrong)


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
        value = _field(record, name)
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


def failed_containers(settings: Settings) -> dict[str, str]:
    """Return the status of our containers that have failed; none when there is no door.

    Raises:
        Failed: The engine cannot be asked.
    """
    if not settings.engine_url:
        return {}
    return failed(_ask(settings, "GET", "/containers/json?all=1", LOOK_TIME))


def restart(settings: Settings, name: str) -> str:
    """Restart a container that is still as bad as when the Master was asked; say what came of it.

    Raises:
        Failed: It was not done; or, where it was `sent`, nobody knows.
    """
    if name not in failed_containers(settings):
        return f"{name} is well again, or gone: nothing was done."
    _ask(settings, "POST", f"/containers/{name}/restart?t=10", RESTART_TIME)
    return f"{name} was restarted."


def prune(settings: Settings) -> str:
    """Remove images without a name that nobody uses, and the build cache, as `restart` does."""
    paths = ("/images/prune", "/build/prune")
    freed = [_field(_ask(settings, "POST", path, PRUNE_TIME), "SpaceReclaimed") for path in paths]
    whole = sum(item for item in freed if isinstance(item, int))
    return f"Dangling images and build cache were removed: {whole / 2**20:.1f} MiB."


def failed(answer: Any) -> dict[str, str]:
    """Given the engine's list of containers, return the status of those of ours that have failed.

    A release that is not the live one is the pipeline's business, whatever state it is in.
    """
    result = {}
    for item in answer if isinstance(answer, list) else ():
        names, labels = _field(item, "Names"), _field(item, "Labels")
        name = str(names[0]).removeprefix("/") if isinstance(names, list) and names else ""
        status = str(_field(item, "Status"))[:100]
        is_live = _field(labels, LIVE_NAME) in (None, name) and _field(labels, ONE_OFF) != "True"
        if OURS.fullmatch(name) and is_live and _is_bad(_field(item, "State"), status):
            result[name] = status
    return result


def _is_bad(state: Any, status: str) -> bool:
    if state == "exited":
        return not status.startswith("Exited (0)")
    return state in ("restarting", "dead") or "(unhealthy)" in status


def _ask(settings: Settings, method: str, path: str, seconds: float) -> Any:
    if not settings.engine_url:
        raise Failed("there is no door to the engine", sent=False)
    try:
        answer = web.exchange(method, settings.engine_url + path, seconds)
    except Failed as error:
        raise Failed(f"{path}: {error.why}", sent=error.sent and method == "POST") from None
    if answer.status >= 300:
        why = str(_field(answer.json(), "message"))[:200]
        lost = answer.status in LOST and method == "POST"
        raise Failed(f"{path}: HTTP {answer.status} {why}", sent=lost)
    return answer.json()


def _field(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, dict) else None
