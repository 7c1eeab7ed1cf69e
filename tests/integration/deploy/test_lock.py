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
from deploy.lock import Owner
from deploy.log import RunLog
from deploy.redact import Redactor
host = local_host(RunLog(Redactor(), io.StringIO()))
held = lock.take(host, sys.argv[1], Owner("one", "deploy", "ann", "laptop", "noon"))
held.at("build")
threading.Thread(target=lambda: host.run(command("sleep", "4711")), daemon=True).start()
print("held", flush=True)
threading.Event().wait()
"""


def owner(run: str) -> Owner:
    return Owner(run, "deploy", "ann", "laptop", "2026-01-01 00:00:00 UTC")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


@contextmanager
def taken(host: Host, path: str, run: str, wait: float = 0) -> Iterator[Held]:
    held = lock.take(host, path, owner(run), wait)
    try:
        yield held
    finally:
        held.give_back()


@contextmanager
def another(path: str) -> Iterator[subprocess.Popen[str]]:
    argv = (sys.executable, "-c", OTHER, path)
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


def test_the_second_is_told_who_was_first_and_where_it_is(here: Host, path: str) -> None:
    with taken(here, path, "one") as held:
        held.at("build")
        eventually(lambda: lock.look(here, path) != owner("one"))
        with pytest.raises(Busy) as caught:
            lock.take(here, path, owner("two"))
        assert caught.value.code == 6
        assert "deploy one by ann on laptop since" in caught.value.why
        assert "at step build" in caught.value.why
        assert not held.lost()
    assert lock.look(here, path) is None
    with taken(here, path, "two") as second:
        assert second.left is None


def test_two_hundred_at_once_and_one_wins(path: str, tmp_path: Path) -> None:
    host = local_host(RunLog(Redactor(), io.StringIO()))

    def attempt(number: int) -> Held | None:
        try:
            return lock.take(host, path, owner(f"run {number}"))
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
    assert [item.name for item in tmp_path.iterdir()] == ["lock"]


def test_one_that_waits_gets_it_next(here: Host, path: str) -> None:
    other = local_host(here.log)
    with ThreadPoolExecutor(1) as pool:
        with taken(here, path, "one"):
            waiting = pool.submit(lock.take, other, path, owner("two"), 30)
            eventually(lambda: here.run(script('pgrep -f "$1"', f"{path} 30")).ok)
            assert not waiting.done()
        second = waiting.result(timeout=30)
    assert not second.lost()
    second.give_back()


def test_who_gives_it_back_leaves_nothing_running(here: Host, path: str) -> None:
    before = set(sleepers())
    with ThreadPoolExecutor(1) as pool, taken(here, path, "one"):
        pool.submit(here.run, command("sleep", "4711"))
        eventually(lambda: bool(set(sleepers()) - before))
    eventually(lambda: set(sleepers()) <= before)


def test_a_killed_owner_holds_nothing_and_what_it_ran_ends(here: Host, path: str) -> None:
    before = set(sleepers())
    with another(path) as process:
        eventually(lambda: bool(set(sleepers()) - before))
        with pytest.raises(Busy):
            lock.take(here, path, owner("two"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with taken(here, path, "two", wait=20) as held:
            assert held.left
            assert (held.left.run, held.left.step) == ("one", "build")
        eventually(lambda: not set(sleepers()) - before)


def test_an_owner_that_is_not_heard_of_loses_it(
    here: Host, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SILENCE", 1)
    monkeypatch.setattr(lock, "BEAT", 3600.0)
    held = lock.take(here, path, owner("one"))
    eventually(held.lost)
    monkeypatch.undo()
    with taken(here, path, "two") as second:
        assert second.left
        assert second.left.run == "one"
    held.give_back()


def test_an_owner_that_beats_keeps_it(
    here: Host, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SILENCE", 2)
    monkeypatch.setattr(lock, "BEAT", 0.2)
    with taken(here, path, "one") as held:
        ends = time.monotonic() + 3  # longer than the silence that would lose it
        while time.monotonic() < ends:
            assert not held.lost()
            time.sleep(0.1)


def test_a_broken_lock_is_noticed_by_its_owner(here: Host, path: str) -> None:
    with taken(here, path, "one") as held:
        lock.break_open(here, path)
        eventually(held.lost)
        assert lock.look(here, path) is None
        with taken(here, path, "two") as second:
            assert second.left
            assert second.left.run == "one"


@pytest.mark.parametrize("content", ["", "{", "[]", "who?"])
def test_a_garbled_owner_is_nobody_we_know(here: Host, path: str, content: str) -> None:
    with taken(here, path, "one"):
        eventually(lambda: lock.look(here, path) == owner("one"))
        Path(f"{path}.owner").write_text(content)
        found = lock.look(here, path)
        assert found == lock.NOBODY
        with pytest.raises(Busy, match="Another run holds the lock"):
            lock.take(here, path, owner("two"))


def test_where_nothing_can_be_written_there_is_no_lock(here: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be written"):
        lock.take(here, str(tmp_path / "file" / "lock"), owner("one"))


def test_a_lock_is_held_across_no_reboot(here: Host, path: str) -> None:
    Path(path).touch()
    Path(f"{path}.owner").write_text('{"run": "old"}')
    assert lock.look(here, path) is None
    with taken(here, path, "two") as held:
        assert held.left == lock.NOBODY
    assert [item.name for item in Path(path).parent.iterdir()] == ["lock"]
