"""A sample of the crash sweep, another one each time; `inv sweep` strikes at every point."""

from __future__ import annotations

import random

import pytest

from deploy.outcome import DeployFailed
from deploy.probe import Figures
from sandbox import contents, dying, sweep
from sandbox.box import Box
from tests.e2e.conftest import ROOT

SEED = random.SystemRandom().randrange(1, 1 << 31)
QUIET = Figures(10, 0, 0.0, 0.0)


def test_every_step_is_struck_before_and_after() -> None:
    names = {item.as_text() for item in dying.points()}
    assert len(names) == len(dying.points())
    for kind, step in (("deploy", "switch"), ("rollback", "drain"), ("restore", "restore")):
        assert {f"{kind}:host:before:{step}", f"{kind}:host:after:{step}"} <= names
    for kind, step in (("migration", "rehearse"), ("migration", "migrate"), ("backup", "backup")):
        assert {f"{kind}:here:before:{step}", f"{kind}:here:after:{step}"} <= names
    assert {dying.parse(name).as_text() for name in names} == names


def test_a_point_that_was_not_reached_or_not_struck_fails_the_sweep() -> None:
    points = dying.points()[:2]
    good = [sweep.Outcome(point, (), QUIET, ()) for point in points]
    assert "2 points, 0 not as they should be" in sweep.judged(good, points, 1)
    missed = sweep.Outcome(points[0], ("the point was never reached",), QUIET, ())
    with pytest.raises(DeployFailed):
        sweep.judged([missed, good[1]], points, 1)
    with pytest.raises(DeployFailed):
        sweep.judged(good[:1], points, 1)
    with pytest.raises(DeployFailed):
        sweep.judged([], [], 1)


def test_killed_anywhere_the_service_answers_and_the_next_run_puts_it_right(box: Box) -> None:
    print(f"sweep: seed {SEED}")  # noqa: T201 - so that a failure can be had again
    draw = random.Random(SEED)  # noqa: S311 - a choice that can be made again, not a secret
    points = dying.points()
    host = [item for item in points if item.side == "host" and item.kind == "deploy"]
    others = [item for item in points if item not in host]
    chosen = [*draw.sample(host, 1), *draw.sample(others, 2)]
    contents.reset(box)
    clone = sweep.prepare(ROOT, box)
    sweep.judged(sweep.strike_all(clone, box, chosen), chosen, SEED)
