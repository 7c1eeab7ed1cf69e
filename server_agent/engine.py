"""The Docker engine, through a door that lets nothing through but what is asked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from server_agent import web
from server_agent.settings import Settings
from server_agent.web import Failed

OURS = re.compile(r"server_agent_vnext_[a-z0-9_]+")  # the containers that we may restart
LIVE_NAME = "deploy.live-name"  # what the pipeline says that a release's container is called
ONE_OFF = "com.docker.compose.oneoff"  # what Compose gives to a container that ends by itself
LOOK = 5.0  # seconds
RESTART = 40.0  # the same; the engine gives a container ten to end
PRUNE = 120.0
LOST = frozenset({502, 504})  # what the door says when the engine's answer did not come


def failed_containers(settings: Settings) -> Mapping[str, str]:
    """Return the status of our containers that have failed; none when there is no door.

    Raises:
        Failed: The engine cannot be asked.
    """
    if not settings.engine_url:
        return {}
    return failed(_ask(settings, "GET", "/containers/json?all=1", LOOK))


def restart(settings: Settings, name: str) -> str:
    """Restart a container that is still as bad as when the Master was asked; say what came of it.

    Raises:
        Failed: It was not done; or, where it was `sent`, nobody knows.
    """
    if name not in failed_containers(settings):
        return f"{name} is well again, or gone: nothing was done."
    _ask(settings, "POST", f"/containers/{name}/restart?t=10", RESTART)
    return f"{name} was restarted."


def prune(settings: Settings) -> str:
    """Remove images without a name that nobody uses, and the build cache, as `restart` does."""
    paths = ("/images/prune", "/build/prune")
    freed = [_field(_ask(settings, "POST", path, PRUNE), "SpaceReclaimed") for path in paths]
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
