"""What the agent may do to the server, through a door that lets nothing else through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server_agent import server, web
from server_agent.settings import Settings
from server_agent.web import NoAnswer

LOOK = 5.0  # seconds
RESTART = 40.0  # the same; the engine gives a container ten to end
PRUNE = 120.0
LOST = frozenset({502, 504})  # what the door says when the engine's answer did not come


@dataclass(eq=False)
class ActionFailed(Exception):  # noqa: N818 - it says what it is
    """The engine did not do what it was asked.

    Args:
        why: What it said.
        unknown: Whether it may have done it nevertheless, or still may.
    """

    why: str
    unknown: bool = False


def failed_containers(settings: Settings) -> Mapping[str, str]:
    """Return the status of our containers that have failed; none when there is no door.

    Raises:
        ActionFailed: The engine cannot be asked.
    """
    if not settings.engine_url:
        return {}
    return server.failed(_ask(settings, "GET", "/containers/json?all=1", LOOK))


def carry_out(settings: Settings, kind: str, subject: str) -> str:
    """Do what was approved; return what came of it.

    Raises:
        ActionFailed: It was not done, or nobody knows.
    """
    return restart(settings, subject) if kind == server.RESTART else prune(settings)


def restart(settings: Settings, name: str) -> str:
    """Restart a container, if it is still as bad as it was when the Master was asked."""
    if name not in failed_containers(settings):
        return f"{name} is well again, or gone: nothing was done."
    _ask(settings, "POST", f"/containers/{name}/restart?t=10", RESTART)
    return f"{name} was restarted."


def prune(settings: Settings) -> str:
    """Remove images without a name that nobody uses, and the build cache."""
    freed = [
        _reclaimed(_ask(settings, "POST", path, PRUNE))
        for path in ("/images/prune", "/build/prune")
    ]
    return f"Dangling images and build cache were removed: {sum(freed) / 2**20:.1f} MiB."


def _reclaimed(answer: Any) -> int:
    found = answer.get("SpaceReclaimed") if isinstance(answer, dict) else None
    return found if isinstance(found, int) else 0


def _ask(settings: Settings, method: str, path: str, seconds: float) -> Any:
    if not settings.engine_url:
        raise ActionFailed("there is no door to the engine")
    try:
        answer = web.exchange(method, settings.engine_url + path, seconds=seconds)
    except NoAnswer as error:
        unknown = error.sent and method == "POST"
        raise ActionFailed(f"{path}: {error.why}", unknown=unknown) from None
    if answer.status >= 300:
        unknown = answer.status in LOST and method == "POST"
        why = str(_field(_json(answer.body), "message"))[:200]
        raise ActionFailed(f"{path}: HTTP {answer.status} {why}", unknown=unknown)
    return _json(answer.body)


def _field(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, dict) else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
