"""The crash sweep: the pipeline is killed everywhere, and each time the next run must put it right.

At each point the service is probed from before the kill until the next deployment has ended; the
point must have been reached, no probe may fail (a restore may refuse some), the next deployment
must end 0, and `rollback` must stand for a release that was live and healthy.
"""

from __future__ import annotations

import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.outcome import DeployFailed
from deploy.probe import Figures
from sandbox import box as boxes
from sandbox import contents, dying
from sandbox.box import Box
from sandbox.clone import clone as make
from sandbox.clone import commit, configure, document, inv
from sandbox.dying import Point
from sandbox.load import Load
from sandbox.shell import must, say

# Seconds without a good answer.
ALLOWED = {"restore": 5.0}
KILLED_THERE = "The host's part of the run was killed"
MIGRATION = '''"""A table more."""

from alembic import op

revision = "{number:04}"
down_revision = "{before:04}"


def upgrade() -> None:
    op.execute("create table sweep_{number} (x int)")
'''
QUICK = {
    "  host: local\n": "  host: vps\n",
    "  compose_file: docker-compose-test.yml\n": '  compose_file: ""\n',
    "  watch_seconds: 8\n": "  watch_seconds: 1\n",
}


@dataclass(frozen=True)
class Outcome:
    """What became of the service and of the next run, after a kill at one point."""

    point: Point
    wrong: tuple[str, ...]
    load: Figures
    next_said: tuple[str, ...]

    def as_text(self) -> str:
        """Say it in a line."""
        how = "; ".join(self.wrong) or "good"
        said = " / ".join(self.next_said) or "nothing to settle"
        return f"{self.point.as_text():<36} {how:<6} {self.load.as_text()} | next: {said}"


def run(root: Path, count: int, seed: int, only: str) -> str:
    """Sweep over the points of a checkout's HEAD, in the box.

    Args:
        root: The checkout.
        count: How many points, drawn by the seed; 0 for all.
        seed: 0 for a new one, which is said.
        only: What the names of the points begin with, empty for all.

    Returns:
        A line for each point, and how many there were.

    Raises:
        DeployFailed: A point was not as it should be; `why` lists all of them.
    """
    seed = seed or random.SystemRandom().randrange(1, 1 << 31)
    everything = [item for item in dying.points() if item.as_text().startswith(only)]
    draw = random.Random(seed)  # noqa: S311 - a choice that can be made again, not a secret
    chosen = draw.sample(everything, min(count, len(everything))) if count else everything
    say(f"sweep: {len(chosen)} of {len(everything)} points, seed {seed}")
    box = boxes.up(root / ".sandbox")
    contents.reset(box)
    clone = prepare(root, box)
    return judged(strike_all(clone, box, chosen), chosen, seed)


def strike_all(clone: Path, box: Box, chosen: Sequence[Point]) -> list[Outcome]:
    """Strike at each of the points, and tell about each."""
    outcomes = []
    for number, point in enumerate(chosen, start=1):
        say(f"\n=== {number}/{len(chosen)} {point.as_text()}")
        outcomes.append(strike(clone, box, point))
        say(outcomes[-1].as_text())
    return outcomes


def judged(outcomes: Sequence[Outcome], chosen: Sequence[Point], seed: int) -> str:
    """Return a line for each outcome, and how many there were.

    Raises:
        DeployFailed: A point was not as it should be, or was not struck at all.
    """
    told = "\n".join(item.as_text() for item in outcomes)
    bad = [item for item in outcomes if item.wrong]
    told += f"\n{len(outcomes)} points, {len(bad)} not as they should be (seed {seed})"
    if bad or not chosen or len(outcomes) != len(chosen):
        raise DeployFailed("The sweep found points that are not as they should be", why=told)
    return told


def prepare(root: Path, box: Box) -> Path:
    """Return a clone with two good releases live in the box, and a backup to restore."""
    clone = make(root, box, "sweep")
    configure(clone, QUICK)
    for name in ("one", "two"):
        commit(clone, "server_agent/__init__.py", f"# {name}\n", name)
        if inv(clone, "deploy") != 0:
            raise DeployFailed("The sweep cannot begin: a good release did not go live")
    return clone


def strike(clone: Path, box: Box, point: Point) -> Outcome:
    """Kill a run at a point, then deploy, and see what the service did all the while."""
    if point.kind == "rollback" and document(clone, "status")["rollback"] is None:
        settle(clone)
    commit(clone, "server_agent/__init__.py", f"# {point.as_text()}\n", point.as_text())
    if point.kind == "fab":
        contents.seed(box, clone)
    if point.kind == "migration":
        migrate(clone)
    wrong: list[str] = []
    with Load(f"{box.url}/health") as load:
        argument = newest_backup(box) if point.kind == "restore" else ""
        if not reached(clone, point, argument):
            wrong.append("the point was never reached")
        good = known_good(clone)
        said, code = settle(clone)
        good |= known_good(clone)  # what the host brought to its end by itself meanwhile
        time.sleep(0.5)  # a last look, at what is left when all is over
    if code != 0:
        wrong.append(f"the next deployment ended {code}")
    figures = load.figures()
    if figures.failed and figures.longest_gap > ALLOWED.get(point.kind, 0.0):
        wrong.append(f"{figures.failed} of {figures.sent} requests failed")
    wrong += [*after(clone, box, good), *not_migrated(clone)]
    return Outcome(point, tuple(wrong), figures, tuple(said))


def migrate(clone: Path) -> None:
    """Commit a migration more."""
    before = len(versions(clone))
    text = MIGRATION.format(number=before + 1, before=before)
    path = clone / f"migrations/versions/{before + 1:04}_sweep.py"
    path.write_text(text)
    add = ("git", "-C", str(clone), "add", "--", str(path))
    must(add, deadline=30, next_step="inv sweep")
    commit(clone, "server_agent/__init__.py", "# migrates\n", path.stem)


def versions(clone: Path) -> Sequence[Path]:
    """Return the migrations of a clone."""
    return sorted((clone / "migrations/versions").glob("[0-9]*.py"))


def not_migrated(clone: Path) -> Sequence[str]:
    """Return what is wrong with what the newest deployment says of the migrations."""
    newest = next(item for item in document(clone, "history") if item["kind"] == "deploy")
    found, wanted = newest["migrations"]["after"], [f"{len(versions(clone)):04}"]
    return [] if found == wanted else [f"the database is at {found}, not at {wanted}"]


def reached(clone: Path, point: Point, argument: str) -> bool:
    """Run a verb that dies at a point; tell whether it did, there."""
    argv = (sys.executable, "-m", "sandbox.dying", point.as_text(), argument)
    done = subprocess.run(argv, cwd=clone, capture_output=True, text=True, timeout=300, check=False)
    if point.side == "here":
        return done.returncode == -signal.SIGKILL
    return KILLED_THERE in done.stderr


def settle(clone: Path) -> tuple[list[str], int]:
    """Deploy; return what that said about the run before, and how it ended."""
    argv = (sys.executable, "-m", "invoke", "deploy", "--host", "vps", "--wait", "60")
    done = subprocess.run(argv, cwd=clone, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        say(done.stderr[-4000:])
    lines = done.stderr.splitlines()
    words = ("ended early", "lost its caller", "left behind", "brought to its end", "still ran")
    said = [line.strip() for line in lines if any(word in line for word in words)]
    return [line for line in said if not line.startswith("→")], done.returncode


def known_good(clone: Path) -> set[str]:
    """Return the releases that were live and healthy."""
    live = document(clone, "status")
    records = document(clone, "history", "--limit", "500")
    found = {item["release"] for item in records if item["code"] == 0 and item["release"]}
    return found | ({live["release"]["id"]} if live["healthy"] else set())


def after(clone: Path, box: Box, good: set[str]) -> Sequence[str]:
    """Return what is wrong with the host now that all should be well."""
    status = document(clone, "status")
    wrong = [] if status["healthy"] else ["the service is not healthy"]
    if status["lock"] is not None:
        wrong.append("the lock is held")
    target = status["rollback"]
    if target is None or target["id"] not in good:
        wrong.append(f"rollback is {target and target['id']}, which was never good")
    else:
        asked = "docker image inspect --format '{{.Id}}' server-agent-vnext:rollback"
        image = must(box.ssh(asked), deadline=30, next_step="").strip()
        if image != target["image"]:
            wrong.append("the image `rollback` is not that of the rollback release")
    names = must(box.ssh("docker ps --format '{{.Names}}'"), deadline=30, next_step="").split()
    if sorted(names) != [
        f"server_agent_vnext_{name}" for name in ("app", "engine", "postgres", "proxy")
    ]:
        wrong.append(f"containers that run: {shlex.join(sorted(names))}")
    return wrong


def newest_backup(box: Box) -> str:
    """Return the name of the newest backup in the box."""
    listing = "ls -1 /opt/server-agent-vnext/backups | grep -E 'sql.gz$' | tail -n 1"
    return must(box.ssh(listing), deadline=30, next_step="inv backup").strip()
