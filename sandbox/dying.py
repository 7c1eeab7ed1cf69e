"""The pipeline, killed with -9 at one point: `python -m sandbox.dying POINT VERB [ARGUMENT]`.

A step dies before it does anything (its journal line is written), or when it has done all (its
end is not written yet). A step of the host's own part dies there. Steps are values, so nothing
in the pipeline has to know of this.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from deploy import backups, cli, conduct, pipeline, runbook, verbs
from deploy.detached import launch, steps
from deploy.detached.work import HAND_OVER
from deploy.pipeline import Done, Step
from deploy.run import Run
from deploy.session import Session

MOMENTS = ("before", "after")
# Of a deployment that migrates: the rest of it is struck at where none does.
MIGRATING = ("backup", "rehearse", "migrate", HAND_OVER, "start", "publish")
FOLLOWING = "following"
# The same program as the host's own, with one step that dies.
DYING = """
import os, signal, sys
from dataclasses import replace
from deploy.detached import steps, work
moment, name, path = sys.argv[1:]
def apply(step, run):
    if moment == "after":
        step.apply(run)
    os.kill(os.getpid(), signal.SIGKILL)
def dying(step):
    return replace(step, apply=lambda run: apply(step, run)) if step.name == name else step
whole = steps.detached
steps.detached = lambda kind: tuple(dying(step) for step in whole(kind))
sys.exit(work.main(["run", path]))
"""
ORDINARY = '"$3" -s -m deploy.detached.work run "$2.plan"'


@dataclass(frozen=True)
class Point:
    """Where a run is killed.

    Args:
        kind: `deploy`, `rollback`, `backup` or `restore`; `fab` is a deployment that the host
            fetches, `migration` one whose migrations have yet to run.
        side: `here` for the pipeline, `host` for what the host does by itself.
        moment: `before` or `after`; `following` while it follows the host.
        step: The step's name.
    """

    kind: str
    side: str
    moment: str
    step: str

    def as_text(self) -> str:
        """Say it in a few words, which `parse` reads back."""
        return f"{self.kind}:{self.side}:{self.moment}:{self.step}"


def parse(text: str) -> Point:
    """Given the words of a point, return it."""
    kind, side, moment, step = text.split(":")
    return Point(kind, side, moment, step)


def points() -> tuple[Point, ...]:
    """Return every point there is: before and after each step of each kind of run."""
    here = {
        "deploy": runbook.deployment_from_here(),
        "rollback": runbook.rollback(),
        "restore": runbook.restoration(),
        "backup": runbook.backup(),
        "fab": runbook.deployment_there(),
        "migration": only(MIGRATING, runbook.deployment_from_here()),
    }
    there = {kind: steps.detached(kind) for kind in ("deploy", "rollback", "restore")}
    there["migration"] = only(MIGRATING, steps.detached("deploy"))
    found = []
    for kind, own in here.items():
        found += [Point(kind, "here", moment, item.name) for item in own for moment in MOMENTS]
        if own[-1].name == HAND_OVER:
            found.append(Point(kind, "here", FOLLOWING, own[-1].name))
        of_host = there.get(kind, ())  # what `fab` hands over is the same as `deploy`
        found += [Point(kind, "host", moment, item.name) for item in of_host for moment in MOMENTS]
    return tuple(found)


def only(names: Sequence[str], these: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps of these names."""
    return tuple(item for item in these if item.name in names)


def die() -> NoReturn:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("this line is never reached")


def dying(step: Step, moment: str) -> Step:
    """Return a step that kills the pipeline, before it does anything or after all of it."""

    def apply(run: Run) -> Done:
        if moment == "after":
            step.apply(run)
        die()

    return replace(step, apply=apply)


def arm(point: Point) -> None:
    """Make this process die there."""
    if point.side == "host":
        words = f"-s -c '{DYING}' {point.moment} {point.step}"
        launch.START = launch.START.replace(ORDINARY, f'"$3" {words} "$2.plan"')
    elif point.moment == FOLLOWING:
        launch.__dict__["_follow"] = lambda *_: die()
    else:

        def execute(run: Run, wanted: Sequence[Step]) -> None:
            pipeline.execute(
                run,
                [dying(item, point.moment) if item.name == point.step else item for item in wanted],
            )

        conduct.__dict__["execute"] = execute


def verb(kind: str, argument: str) -> Callable[[Session], str]:
    """Return what a kind of run does on a session."""
    if kind in ("deploy", "migration"):
        here = runbook.deployment_from_here()
        return lambda session: verbs.deploy_from_here(session, argument, 0, here)
    if kind == "fab":
        there = runbook.deployment_there()
        return lambda session: verbs.deploy_there(session, argument, 0, there)
    if kind == "backup":
        return lambda session: str(backups.back_up(session, argument, download=False))
    if kind == "rollback":
        return lambda session: verbs.rollback(session, argument, 0)
    return lambda session: backups.restore(session, argument, None, "", yes=True)


def main(words: list[str]) -> None:
    """Run a verb in the working folder and die at a point of it."""
    point = parse(words[0])
    arm(point)
    argument = words[1] if len(words) > 1 else ""
    tool = "fab" if point.kind == "fab" else "inv"
    cli.call(Path.cwd(), "vps", tool, verb(point.kind, argument))


if __name__ == "__main__":
    main(sys.argv[1:])
