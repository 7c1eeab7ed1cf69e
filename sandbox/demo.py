"""The main job, shown: three deployments to the box, the second under load, the third broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.outcome import DeployFailed
from deploy.probe import Figures
from sandbox import box as boxes
from sandbox import contents
from sandbox.clone import clone as make
from sandbox.clone import commit, document, inv
from sandbox.load import Load
from sandbox.shell import say

BROKEN = '\nCMD ["python", "-c", "import time; time.sleep(3600)"]\n'


@dataclass(frozen=True)
class Act:
    """One deployment of the demo, and what came of it."""

    title: str
    code: int
    record: dict[str, Any]
    load: Figures | None


def run(root: Path) -> str:
    """Show three deployments to the box, from a clone of this checkout's HEAD.

    Args:
        root: The checkout.

    Returns:
        What happened, with figures.

    Raises:
        DeployFailed: Something went otherwise than it should; the text is in `why`.
    """
    box = boxes.up(root / ".sandbox")
    contents.reset(box)
    clone = make(root, box, "demo")
    first = _act(clone, box, "v1: the first deployment", loaded=False)
    commit(clone, "server_agent/__init__.py", "\n# v2\n", "v2")
    second = _act(clone, box, "v2: under load", loaded=True)
    commit(clone, "Dockerfile", BROKEN, "v3: never answers")
    third = _act(clone, box, "v3: broken, it never becomes healthy", loaded=True)
    status = document(clone, "status")
    told = "\n\n".join(["", *(_told(act) for act in (first, second, third)), _now(status, second)])
    problems = _problems((first, second, third), status)
    if problems:
        raise DeployFailed("The demo went otherwise than it should", why=f"{problems}\n{told}")
    return told


def _act(clone: Path, box: boxes.Box, title: str, *, loaded: bool) -> Act:
    say(f"\n=== {title}")
    if not loaded:
        return Act(title, inv(clone, "deploy"), document(clone, "report"), None)
    with Load(f"{box.url}/health") as load:
        code = inv(clone, "deploy")
    return Act(title, code, document(clone, "report"), load.figures())


def _told(act: Act) -> str:
    lines = [f"{act.title}: exit code {act.code}, {act.record['outcome']}"]
    if act.record["error"]:
        lines.append(f"  {act.record['error']['error'].splitlines()[0]}")
    lines += [
        f"  {step['name']:<10}{step['state']:<9}{step['seconds']:>7.2f} s"
        for step in act.record["steps"]
    ]
    if act.load:
        lines.append(f"  {act.load.as_text()}")
    return "\n".join(lines)


def _now(status: dict[str, Any], second: Act) -> str:
    release = status["release"] or {}
    answering = "healthy" if status["healthy"] else "not healthy"
    same = "v2" if release.get("id") == second.record["release"] else "NOT v2"
    return f"now at {status['url']}: {release.get('id', 'nothing')} ({same}), {answering}"


def _problems(acts: tuple[Act, Act, Act], status: dict[str, Any]) -> str:
    first, second, third = acts
    release = status["release"] or {}
    expectations: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("v1 is not live", lambda: first.code == 0),
        ("v2 is not live", lambda: second.code == 0),
        ("the broken v3 was not refused", lambda: third.code in (3, 4)),
        ("v2 does not answer", lambda: bool(status["healthy"])),
        ("another release than v2 is live", lambda: release.get("id") == second.record["release"]),
    )
    return "; ".join(text for text, holds in expectations if not holds())
