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


def test_what_was_never_seen_after_a_while_has_died(plan: Path) -> None:
    os.utime(plan.with_suffix(".out"), (LONG_AGO, LONG_AGO))
    assert work.follow(plan, 0) == work.DIED


def test_a_process_that_is_gone_has_died_at_once(plan: Path) -> None:
    with subprocess.Popen((sys.executable, "-c", "")) as child:
        child.wait()
    plan.with_suffix(".pid").write_text(f"{child.pid}\n")
    assert work.follow(plan, 0) == work.DIED


def test_of_what_nobody_started_nothing_is_said(tmp_path: Path) -> None:
    assert work.follow(tmp_path / "run.plan", 0) == work.UNBEGUN
