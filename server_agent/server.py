"""The server: what is known of it, and what may be done to it.

Its containers are seen and restarted through a door to the Docker engine, which lets nothing
through but what is asked here.
"""

import hashlib
import hmac
import json
import logging
import re
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AliasPath, AwareDatetime, Field

from server_agent import web
from server_agent.settings import Settings
from server_agent.web import Failed, Given

OURS = re.compile(r"server_agent_vnext_[a-z0-9_]+")  # the containers that we may restart
BAD = re.compile(r"Exited \((?!0\))|Restarting|Dead|.*\(unhealthy\)")  # how one has failed
LIVE_NAME = "deploy.live-name"  # what the pipeline says that a release's container is called
ONE_OFF = "com.docker.compose.oneoff"  # what Compose gives to a container that ends by itself
LOOK_TIME = 5.0  # seconds
RESTART_TIME = 40.0  # the same; the engine gives a container ten to end
PRUNE_TIME = 120.0

LITTLE_MEMORY = 5  # per cent
OLD = timedelta(hours=36)  # a backup is taken each day
BACKUP = "backup.json"  # where the pipeline tells of the newest backup
HISTORY = "history.json"  # and of its deployments
SHOWN = 5  # of them
LARGEST = 1 << 20  # bytes of a file that we are told something in

DEPLOY = "deploy"
RESTART = "restart"
PRUNE = "prune"

log = logging.getLogger("server_agent.proactive")


@dataclass(frozen=True)
class Fact:
    """What is known of something, in words."""

    text: str
    wrong: str = ""  # what is not as it should be; empty: all is well
    action: str = ""  # what could be done about it; empty: nothing

    def __str__(self) -> str:
        return self.text


class Backup(Given):
    """What the pipeline tells of the newest backup."""

    name: str
    at: Annotated[AwareDatetime, Field(strict=False)]
    state: str


class Deployment(Given):
    """What it tells of a deployment."""

    started: str
    kind: str
    ref: str
    sha: str
    outcome: str
    code: int
    seconds: float
    who: str

    def __str__(self) -> str:
        made = f"{self.started[:16]} {self.kind} {self.ref} ({self.sha[:7]})"
        return f"{made}: {self.outcome} (code {self.code}), {self.seconds:g} s, {self.who}"


class Container(Given):
    """What the engine tells of a container."""

    name: str = Field("", validation_alias=AliasPath("Names", 0))
    status: str = Field(alias="Status")
    labels: dict[str, str] = Field(alias="Labels")


def findings(settings: Settings) -> dict[str, Fact]:
    """Return what is not as it should be, by name."""
    return {name: fact for name, fact in facts(settings).items() if fact.wrong}


def facts(settings: Settings) -> dict[str, Fact]:
    """Return what is known of the server, by name."""
    disk, memory = shutil.disk_usage(settings.data_dir), memory_of(Path("/proc/meminfo"))
    full = ("The disk is nearly full", PRUNE if settings.engine_url else "")
    scarce = ("Memory is nearly used up", "")
    version = f"version {settings.version} ({settings.vcs_ref[:7]}), built {settings.build_date}"
    found = {
        "disk": share_of(disk.free, disk.total, settings.disk_free_percent, *full),
        "memory": share_of(memory["MemAvailable"], memory["MemTotal"], LITTLE_MEMORY, *scarce),
        "deployment": Fact(version),
    }
    if settings.facts_dir:
        found["backup"] = backup_of(_text(settings, BACKUP), datetime.now(UTC))
    try:
        for name, status in failed_containers(settings).items():
            found[name] = Fact(status, f"Container {name} has failed", RESTART)
    except Failed as error:
        log.warning("the engine cannot be asked: %s", error.why)
        found["containers"] = Fact(error.why, "I cannot see the containers")
    return found


def memory_of(file: Path) -> dict[str, int]:
    """Return the bytes that the kernel tells in a file such as /proc/meminfo."""
    found = re.findall(r"^(\w+): +(\d+) kB$", file.read_text(), re.MULTILINE)
    return {name: int(figure) << 10 for name, figure in found}


def share_of(free: int, whole: int, little: int, wrong: str, action: str) -> Fact:
    """Return how much is free, and what is wrong where that is less than so many per cent."""
    text = f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB free"
    return Fact(text, wrong, action) if 100 * free < little * whole else Fact(text)


def backup_of(text: str, now: datetime) -> Fact:
    """Return what the pipeline tells of the newest backup, and whether that is well."""
    found = web.read(Backup, text)
    if found is None:
        return Fact(f"{BACKUP} is missing or unreadable", "No backup is known")
    wrong = "The newest backup is old" if now - found.at > OLD else ""
    return Fact(f"{found.name}, {found.at:%Y-%m-%d %H:%M %Z}, {found.state}", wrong)


def deployments(settings: Settings) -> str:
    """Return the last deployments, the newest first, a line each; or why there are none."""
    found = web.read(list[Deployment], _text(settings, HISTORY) or "[]")
    if found is None:
        return f"{HISTORY} cannot be read."
    return "\n".join(map(str, found[:SHOWN])) or "I was told of no deployment yet."


def _text(settings: Settings, name: str) -> str:
    if settings.facts_dir:
        with suppress(OSError), Path(settings.facts_dir, name).open("rb") as file:
            return file.read(LARGEST).decode(errors="replace")
    return ""


def failed_containers(settings: Settings) -> dict[str, str]:
    """Return the status of our containers that have failed; none when there is no door.

    Raises:
        Failed: The engine cannot be asked.
    """
    if not settings.engine_url:
        return {}
    url = f"{settings.engine_url}/containers/json?all=1"
    found = web.read(list[Container], web.exchange("GET", url, LOOK_TIME))
    if found is None:
        raise Failed("what came back is no list of containers", sent=False)
    return failed(found)


def failed(containers: list[Container]) -> dict[str, str]:
    """Return the status of those of ours that have failed, by name.

    A release that is not the live one is the pipeline's business, whatever state it is in.
    """
    result = {}
    for item in containers:
        name = item.name.removeprefix("/")
        is_live = item.labels.get(LIVE_NAME, name) == name and item.labels.get(ONE_OFF) != "True"
        if OURS.fullmatch(name) and is_live and BAD.match(item.status):
            result[name] = item.status
    return result


def restart(settings: Settings, name: str) -> str:
    """Restart a container that is still as bad as when the Master was asked; say what came of it.

    Raises:
        Failed: It was not done; or, where it was `sent`, nobody knows.
    """
    if name not in failed_containers(settings):
        return f"{name} is well again, or gone: nothing was done."
    web.exchange("POST", f"{settings.engine_url}/containers/{name}/restart?t=10", RESTART_TIME)
    return f"{name} was restarted."


def deploy(settings: Settings, branch: str) -> str:
    """Tell the listener on the host, as GitHub does, that a branch is to be deployed.

    Raises:
        Failed: It was not told; or, where it was `sent`, nobody knows.
    """
    one = uuid.uuid4().hex  # the same told twice would be a replay
    body = json.dumps({"ref": f"refs/heads/{branch}", "pusher": {"name": "the Master"}, "id": one})
    proof = hmac.new(settings.webhook_secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": one,
        "X-Hub-Signature-256": f"sha256={proof}",
    }
    said = web.exchange("POST", settings.deploy_url, LOOK_TIME, body.encode(), headers)
    return f"the host was told, and says: {said.decode(errors='replace').strip()[:200]}"


def prune(settings: Settings) -> str:
    """Remove images without a name that nobody uses, and the build cache, as `restart` does."""
    web.exchange("POST", f"{settings.engine_url}/images/prune", PRUNE_TIME)
    try:
        web.exchange("POST", f"{settings.engine_url}/build/prune", PRUNE_TIME)
    except Failed as error:
        error.why = f"the build cache: {error.why}; images without a name were removed"
        raise
    return "Dangling images and build cache were removed."
