"""One run at a time, however many try."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy import lock
from deploy.host import Host, local_host
from deploy.lock import Owner
from deploy.log import RunLog
from deploy.outcome import Busy, Invalid
from deploy.redact import Redactor


def owner(run: str) -> Owner:
    return Owner(run, "deploy", "ann", "laptop", "2026-01-01 00:00:00 UTC")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_the_second_is_told_who_was_first(here: Host, path: str) -> None:
    lock.take(here, path, owner("one"))
    with pytest.raises(Busy) as caught:
        lock.take(here, path, owner("two"))
    assert caught.value.code == 6
    assert "deploy one by ann on laptop since" in caught.value.why
    lock.give_back(here, path, owner("one"))
    lock.take(here, path, owner("two"))


def test_only_its_owner_gives_it_back(here: Host, path: str) -> None:
    lock.take(here, path, owner("one"))
    lock.give_back(here, path, owner("two"))
    found = lock.parse(Path(path).read_text())
    assert found == owner("one")


def test_two_hundred_at_once_and_one_wins(path: str, tmp_path: Path) -> None:
    host = local_host(RunLog(Redactor(), io.StringIO()))

    def attempt(number: int) -> bool:
        try:
            lock.take(host, path, owner(f"run {number}"))
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(40) as pool:
        won = [number for number, held in enumerate(pool.map(attempt, range(200))) if held]
    assert len(won) == 1
    assert lock.parse(Path(path).read_text()) == owner(f"run {won[0]}")
    assert [item.name for item in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("content", ["", "{", "[]", "who?"])
def test_a_garbled_lock_is_still_one(here: Host, path: str, content: str) -> None:
    Path(path).write_text(content)
    with pytest.raises(Busy, match="Another run holds the lock"):
        lock.take(here, path, owner("one"))
    assert Path(path).read_text() == content


def test_where_nothing_can_be_written_there_is_no_lock(here: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be written"):
        lock.take(here, str(tmp_path / "file" / "lock"), owner("one"))
