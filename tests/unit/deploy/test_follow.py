"""Who follows what a host does by itself: when it goes on, and when it has died."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.detached import work

LONG_AGO = 1_000_000_000


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "run.plan"
    path.with_suffix(".out").touch()
    return path


def finish(plan: Path, process: int) -> None:
    plan.with_suffix(".pid").write_text(f"{process}\n")
    work.result_path(plan).write_text("{}")


def test_what_is_just_being_started_has_not_died(plan: Path) -> None:
    threading.Timer(0.3, finish, (plan, os.getpid())).start()
    assert work.follow(plan, 0) == 0


def test_a_process_that_is_not_the_work_yet_has_not_died(plan: Path) -> None:
    plan.with_suffix(".pid").write_text(f"{os.getpid()}\n")
    threading.Timer(0.3, finish, (plan, os.getpid())).start()
    assert work.follow(plan, 0) == 0


HANDED_OVER = '{"step": "migrate", "state": "ok"}\n{"step": "cutover", "state": "begin"}\n'


def never_seen(plan: Path, journal: str) -> int:
    plan.touch()
    plan.with_suffix(".jsonl").write_text(journal)
    os.utime(plan.with_suffix(".out"), (LONG_AGO, LONG_AGO))
    return work.follow(plan, 0)


def test_what_was_never_started_will_never_be(plan: Path) -> None:
    assert never_seen(plan, HANDED_OVER) == work.UNBEGUN
    assert not plan.exists()
    assert work.follow(plan, 0) == work.UNBEGUN


@pytest.mark.parametrize(
    "journal", [HANDED_OVER + '{"step": "start", "state": "begin"}\n', "", "garbage\n", "[1]\n"]
)
def test_what_has_begun_and_cannot_be_seen_any_more_has_died(plan: Path, journal: str) -> None:
    assert never_seen(plan, journal) == work.DIED
    assert plan.exists()


@pytest.mark.parametrize("left", [".part", ".pid"])
def test_what_has_left_anything_has_died(plan: Path, left: str) -> None:
    plan.with_suffix(left).write_text("0\n")
    assert never_seen(plan, HANDED_OVER) == work.DIED


def test_a_process_that_is_gone_has_died_at_once(plan: Path) -> None:
    with subprocess.Popen((sys.executable, "-c", "")) as child:
        child.wait()
    plan.with_suffix(".pid").write_text(f"{child.pid}\n")
    assert work.follow(plan, 0) == work.DIED


def test_of_what_nobody_started_nothing_is_said(tmp_path: Path) -> None:
    assert work.follow(tmp_path / "run.plan", 0) == work.UNBEGUN
