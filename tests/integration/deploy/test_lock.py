"""One run at a time, however many try, and no lock outlives its owner."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy import lock
from deploy.command import command, script
from deploy.host import Host, local_host
from deploy.layout import Layout
from deploy.lock import Held, Owner
from deploy.log import RunLog
from deploy.outcome import Busy, Invalid
from deploy.redact import Redactor
from tests.support.agent import eventually

ROOT = Path(__file__).resolve().parents[3]
# Another pipeline: takes the lock, says so, starts something long, and waits to be killed.
OTHER = """
import io, sys, threading
from deploy import lock
from deploy.command import command
from deploy.host import local_host
from deploy.layout import Layout
from deploy.lock import Owner
from deploy.log import RunLog
from deploy.redact import Redactor
host = local_host(RunLog(Redactor(), io.StringIO()))
held = lock.take(host, Layout(sys.argv[1]), Owner("one", "deploy", "ann", "laptop", "noon"))
held.at("build")
threading.Thread(target=lambda: host.run(command("sleep", "4711")), daemon=True).start()
print("held", flush=True)
threading.Event().wait()
"""


def owner(run: str) -> Owner:
    return Owner(run, "deploy", "ann", "laptop", "2026-01-01 00:00:00 UTC")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "root"))


def files(layout: Layout) -> list[str]:
    """What lies in the root beside the folders."""
    return [item.name for item in Path(layout.root).iterdir() if item.is_file()]


@contextmanager
def taken(host: Host, layout: Layout, run: str, wait: float = 0) -> Iterator[Held]:
    held = lock.take(host, layout, owner(run), wait)
    try:
        yield held
    finally:
        held.give_back()


@contextmanager
def another(layout: Layout) -> Iterator[subprocess.Popen[str]]:
    argv = (sys.executable, "-c", OTHER, layout.root)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def sleepers() -> list[int]:
    """The processes that run `sleep 4711`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", b"4711"]:
                found.append(int(entry.name))
    return found


def test_the_second_is_told_who_was_first_and_where_it_is(here: Host, layout: Layout) -> None:
    with taken(here, layout, "one") as held:
        held.at("build")
        eventually(lambda: lock.look(here, layout.lock) != owner("one"))
        with pytest.raises(Busy) as caught:
            lock.take(here, layout, owner("two"))
        assert caught.value.code == 6
        assert "deploy one by ann on laptop since" in caught.value.why
        assert "at step build" in caught.value.why
        assert not held.lost()
    assert lock.look(here, layout.lock) is None
    with taken(here, layout, "two") as second:
        assert second.left is None


def test_two_hundred_at_once_and_one_wins(layout: Layout) -> None:
    host = local_host(RunLog(Redactor(), io.StringIO()))

    def attempt(number: int) -> Held | None:
        try:
            return lock.take(host, layout, owner(f"run {number}"))
        except Busy:
            return None

    with ThreadPoolExecutor(200) as pool:
        won = [held for held in pool.map(attempt, range(200)) if held]
    try:
        assert len(won) == 1
        assert not won[0].lost()
    finally:
        for held in won:
            held.give_back()
    assert files(layout) == ["lock"]


def test_one_that_waits_gets_it_next(here: Host, layout: Layout) -> None:
    other = local_host(here.log)
    with ThreadPoolExecutor(1) as pool:
        with taken(here, layout, "one"):
            waiting = pool.submit(lock.take, other, layout, owner("two"), 30)
            eventually(lambda: here.run(script('pgrep -f "$1"', f"{layout.lock} 30")).ok)
            assert not waiting.done()
        second = waiting.result(timeout=30)
    assert not second.lost()
    second.give_back()


def test_who_gives_it_back_leaves_nothing_running(here: Host, layout: Layout) -> None:
    before = set(sleepers())
    with ThreadPoolExecutor(1) as pool, taken(here, layout, "one"):
        pool.submit(here.run, command("sleep", "4711"))
        eventually(lambda: bool(set(sleepers()) - before))
    eventually(lambda: set(sleepers()) <= before)


def test_a_killed_owner_holds_nothing_and_what_it_ran_ends(here: Host, layout: Layout) -> None:
    before = set(sleepers())
    with another(layout) as process:
        eventually(lambda: bool(set(sleepers()) - before))
        with pytest.raises(Busy):
            lock.take(here, layout, owner("two"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with taken(here, layout, "two", wait=20) as held:
            assert held.left
            assert (held.left.run, held.left.step) == ("one", "build")
        eventually(lambda: not set(sleepers()) - before)


def test_an_owner_that_is_not_heard_of_loses_it(
    here: Host, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SILENCE", 1)
    monkeypatch.setattr(lock, "BEAT", 3600.0)
    held = lock.take(here, layout, owner("one"))
    eventually(held.lost)
    monkeypatch.undo()
    with taken(here, layout, "two") as second:
        assert second.left
        assert second.left.run == "one"
    held.give_back()


def test_an_owner_that_beats_keeps_it(
    here: Host, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SILENCE", 2)
    monkeypatch.setattr(lock, "BEAT", 0.2)
    with taken(here, layout, "one") as held:
        ends = time.monotonic() + 3  # longer than the silence that would lose it
        while time.monotonic() < ends:
            assert not held.lost()
            time.sleep(0.1)


def test_a_broken_lock_is_noticed_by_its_owner(here: Host, layout: Layout) -> None:
    with taken(here, layout, "one") as held:
        lock.break_open(here, layout.lock)
        eventually(held.lost)
        assert lock.look(here, layout.lock) is None
        with taken(here, layout, "two") as second:
            assert second.left
            assert second.left.run == "one"


def test_the_newest_run_is_told(here: Host, layout: Layout) -> None:
    with taken(here, layout, "one") as held:
        assert held.newest == ""
    assert all(Path(folder).is_dir() for folder in layout.folders)
    for name in ("2026-01-02_00-00-00.jsonl", "2026-01-01_00-00-00.jsonl", "2026-01-03.plan"):
        Path(layout.journal, name).touch()
    with taken(here, layout, "two") as held:
        assert held.newest == "2026-01-02_00-00-00"


@pytest.mark.parametrize("content", ["", "{", "[]", "who?"])
def test_a_garbled_owner_is_nobody_we_know(here: Host, layout: Layout, content: str) -> None:
    with taken(here, layout, "one"):
        eventually(lambda: lock.look(here, layout.lock) == owner("one"))
        Path(f"{layout.lock}.owner").write_text(content)
        found = lock.look(here, layout.lock)
        assert found == lock.NOBODY
        with pytest.raises(Busy, match="Another run holds the lock"):
            lock.take(here, layout, owner("two"))


def test_where_nothing_can_be_written_there_is_no_lock(here: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be made"):
        lock.take(here, Layout(str(tmp_path / "file" / "root")), owner("one"))


def test_a_lock_is_held_across_no_reboot(here: Host, layout: Layout) -> None:
    Path(layout.root).mkdir()
    Path(layout.lock).touch()
    Path(f"{layout.lock}.owner").write_text('{"run": "old"}')
    assert lock.look(here, layout.lock) is None
    with taken(here, layout, "two") as held:
        assert held.left == lock.NOBODY
    assert files(layout) == ["lock"]
