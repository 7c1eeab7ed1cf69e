"""The main job, shown: three deployments to the box, the second under load, the third broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.outcome import DeployFailed
from deploy.probe import Figures
from sandbox import box as boxes
from sandbox import contents
from sandbox.load import Load
from sandbox.shell import must, say

DEADLINE = 1200
BROKEN = '\nCMD ["python", "-c", "import time; time.sleep(3600)"]\n'
AUTHOR = ("-c", "user.name=demo", "-c", "user.email=demo@localhost")


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
    clone = _clone(root, box)
    first = _act(clone, box, "v1: the first deployment", loaded=False)
    _commit(clone, "server_agent/__init__.py", "\n# v2\n", "v2")
    second = _act(clone, box, "v2: under load", loaded=True)
    _commit(clone, "Dockerfile", BROKEN, "v3: never answers")
    third = _act(clone, box, "v3: broken, it never becomes healthy", loaded=True)
    status = _json(clone, "status")
    told = "\n\n".join(["", *(_told(act) for act in (first, second, third)), _now(status, second)])
    problems = _problems((first, second, third), status)
    if problems:
        raise DeployFailed("The demo went otherwise than it should", why=f"{problems}\n{told}")
    return told


def _clone(root: Path, box: boxes.Box) -> Path:
    clone = box.directory / "demo"
    again = "./bootstrap demo"
    if clone.exists():
        shutil.rmtree(clone)
    must(("git", "clone", "--quiet", "--", str(root), str(clone)), deadline=60, next_step=again)
    must(("git", "-C", str(clone), "remote", "remove", "origin"), deadline=10, next_step=again)
    (clone / ".sandbox").symlink_to(box.directory)
    return clone


def _commit(clone: Path, name: str, addition: str, message: str) -> None:
    path = clone / name
    path.write_text(path.read_text() + addition)
    git = ("git", "-C", str(clone), *AUTHOR)
    must(
        (*git, "commit", "--quiet", "--all", "--message", message),
        deadline=30,
        next_step="./bootstrap demo",
    )


def _act(clone: Path, box: boxes.Box, title: str, *, loaded: bool) -> Act:
    say(f"\n=== {title}")
    if not loaded:
        return Act(title, _inv(clone, "deploy"), _json(clone, "report"), None)
    with Load(f"{box.url}/health") as load:
        code = _inv(clone, "deploy")
    return Act(title, code, _json(clone, "report"), load.figures())


def _inv(clone: Path, *words: str) -> int:
    argv = (sys.executable, "-m", "invoke", *words, "--host", "vps")
    done = subprocess.run(argv, cwd=clone, timeout=DEADLINE, check=False, stdout=sys.stderr)
    return done.returncode


def _json(clone: Path, verb: str) -> dict[str, Any]:
    argv = (sys.executable, "-m", "invoke", verb, "--host", "vps", "--json")
    answer = must(argv, deadline=60, cwd=clone, next_step="inv status --host vps")
    found: dict[str, Any] = json.loads(answer)
    return found


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
