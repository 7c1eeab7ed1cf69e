"""Backups of a real PostgreSQL, and what must not pass for one."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.outcome import DataFailed
from deploy.postgres import backup, restore
from deploy.postgres.access import Database
from deploy.postgres.download import download
from tests.support.agent import eventually
from tests.support.container import EACH_VERSION, sql
from tests.support.disk import small_disk
from tests.support.dumps import AT, ROWS, back_up, files, quiet

LOCKED = """
select count(*) > 0 from pg_locks
where granted and mode = 'AccessExclusiveLock' and relation = 'plain'::regclass
"""


@EACH_VERSION
def test_a_backup_is_named_private_and_described(filled: Database) -> None:
    taken = back_up(filled, AT)
    path = Path(taken.path)
    assert path.name == "shop_2026-01-02_03-04-05.sql.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert dict(taken.tables) == ROWS
    assert taken.rows == 241
    manifest = json.loads(Path(f"{taken.path}.json").read_text())
    assert (manifest["release"], manifest["sha"], manifest["heads"]) == ("r1", "c0ffee", ["0001"])
    assert manifest["sequences"] == {"public.plain_id_seq": 204}
    version = sql(filled.container, "show server_version")
    assert manifest["server"] == version
    assert manifest["sha256"] == taken.sha256
    assert manifest["pg_dump"] == version
    assert files(filled) == [path.name, f"{path.name}.json"]


def test_two_backups_in_one_second_are_two(filled: Database) -> None:
    first, second = back_up(filled, AT), back_up(filled, AT)
    assert second.name == "shop_2026-01-02_03-04-06.sql.gz"
    assert [item.name for item in backup.listing(filled.host, filled.folder)] == [
        first.name,
        second.name,
    ] or len(backup.listing(filled.host, filled.folder)) == 2


def test_a_killed_pg_dump_leaves_no_backup(filled: Database) -> None:
    # A lock that pg_dump has to wait for holds it until it is killed.
    locker = ("psql", "-X", "-U", "owner", "-d", "live", "-c")
    held = "begin; lock plain; select pg_sleep(60)"
    words = ("docker", "exec", filled.container, *locker, held)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as holder:
        eventually(lambda: sql(filled.container, LOCKED) == "t")
        killer = threading.Thread(target=_end_dump, args=(filled,))
        killer.start()
        with pytest.raises(DataFailed, match="could not be backed up") as caught:
            back_up(filled, AT)
        killer.join()
        sql(
            filled.container,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where query like 'begin; lock%' and pid <> pg_backend_pid()",
        )
        holder.wait(30)
    assert "pg_dump ended with exit code 1\n" in caught.value.why
    assert files(filled) == []
    assert backup.listing(filled.host, filled.folder) == ()


def _end_dump(database: Database) -> None:
    words = "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    where = " where application_name = 'pg_dump' and wait_event_type = 'Lock'"
    while sql(database.container, words + where, "postgres") == "0":
        pass


def test_a_stopped_database_fails_the_backup_and_spares_the_old_one(filled: Database) -> None:
    taken = back_up(filled, AT)
    gone = replace(filled, container="no-such-container")
    with pytest.raises(DataFailed) as caught:
        back_up(gone, AT.replace(minute=59))
    assert "no-such-container" in caught.value.why
    assert files(filled) == [taken.name, f"{taken.name}.json"]


def test_an_empty_database_after_a_full_one_is_no_backup(filled: Database) -> None:
    taken = back_up(filled, AT)
    sql(filled.container, "drop database live with (force)", "postgres")
    sql(filled.container, "create database live", "postgres")
    with pytest.raises(DataFailed) as caught:
        back_up(filled, AT.replace(minute=59))
    assert "no table" in caught.value.why
    assert caught.value.where == f"{filled.host.name}:{taken.path}"


def test_a_full_disk_fails_the_backup_and_leaves_nothing(filled: Database) -> None:
    with small_disk(Path(filled.folder)):
        with pytest.raises(DataFailed) as caught:
            back_up(filled, AT)
        assert "free" in caught.value.why
        assert files(filled) == []


def test_a_file_with_a_garbled_manifest_is_unverified_and_alone_it_is_damaged(
    filled: Database,
) -> None:
    taken = back_up(filled, AT)
    for text in ("{", "[]", '{"at": 3}', '{"why":\r\n"\u2028\x0c"}\n'):
        Path(f"{taken.path}.json").write_text(text)
        (found,) = backup.listing(filled.host, filled.folder)
        assert (found.name, found.bytes, found.state) == (taken.name, taken.bytes, "unverified")
        assert (found.why, found.at[:3]) == ("its manifest makes no sense", "202")
        assert restore.known_of(filled, taken.path) is None
        assert restore.verify(filled, found, print).sha256 == taken.sha256
        assert backup.is_garbled(found, filled.prefix)
    Path(f"{taken.path}.json").write_text("")
    (found,) = backup.listing(filled.host, filled.folder)
    assert (found.state, found.why) == ("unverified", "no manifest")
    Path(taken.path).unlink()
    (found,) = backup.listing(filled.host, filled.folder)
    assert (found.name, found.state) == (taken.name, "damaged")


def test_a_download_is_whole_or_not_there(filled: Database, tmp_path: Path) -> None:
    taken = back_up(filled, AT)
    copy = download(filled.host, taken, tmp_path / "home", quiet)
    assert copy.read_bytes() == Path(taken.path).read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    other = replace(taken, name="other.sql.gz", sha256="0" * 64)
    with pytest.raises(DataFailed, match="differs"):
        download(filled.host, other, tmp_path / "home", quiet)
    assert [path.name for path in (tmp_path / "home").iterdir()] == [taken.name]
