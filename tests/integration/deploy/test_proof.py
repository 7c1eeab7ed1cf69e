"""Backups that are looked at again: read, restored apart, and made into databases of their own."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deploy import backups, verdict
from deploy.outcome import DataFailed, Invalid
from deploy.postgres import backup, dump, restore
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup
from deploy.steps import data
from tests.integration.deploy.test_retention import release, run_of
from tests.support.container import docker, sql
from tests.support.dumps import AT, ORIGIN, back_up, content, databases, put, quiet, restored

NOW = datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC)


def run_at(database: Database, ref: str = "") -> Any:
    """A run whose settings lead to the database, as far as these steps look at it."""
    project = docker("inspect", "--format", LABEL, database.container).strip()
    root = Path(database.folder).parent
    run = run_of("verify", database.host, root, project)
    run.ref = ref
    return run


LABEL = '{{index .Config.Labels "com.docker.compose.project"}}'


def manifest(item: Backup) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(Path(f"{item.path}.json").read_text()))


def flip(path: str) -> None:
    """Change a byte in the middle, so that the size stays."""
    text = bytearray(Path(path).read_bytes())
    text[len(text) // 2] ^= 0xFF
    Path(path).write_bytes(text)


def test_all_are_read_and_the_bad_ones_are_named_and_count_no_more(filled: Database) -> None:
    good = back_up(filled, AT)
    bad = back_up(filled, AT.replace(minute=5))
    flip(bad.path)
    run = run_at(filled)
    with pytest.raises(DataFailed, match="1 of 2 backups are not good") as caught:
        data.verify(run, data.all_of, data.read_through)
    assert caught.value.code == 9
    assert bad.name in caught.value.why
    states = {item["name"]: item["state"] for item in run.facts["verified"]}
    assert states == {good.name: "good", bad.name: "damaged"}
    assert manifest(bad)["state"] == "damaged"
    assert "invalid compressed data" in manifest(bad)["why"]
    listing = backup.listing(filled.host, filled.folder)
    assert {item.name: item.state for item in listing} == states
    assert manifest(good)["verified"] > good.verified or manifest(good)["verified"]


def test_one_that_was_called_damaged_and_is_whole_again_is_good_again(filled: Database) -> None:
    taken = back_up(filled, AT)
    whole = Path(taken.path).read_bytes()
    flip(taken.path)
    with pytest.raises(DataFailed):
        data.verify(run_at(filled), data.one_of, data.read_through)
    Path(taken.path).write_bytes(whole)
    data.verify(run_at(filled, taken.name), data.one_of, data.read_through)
    assert manifest(taken)["state"] == "good"
    assert manifest(taken)["why"] == ""


def test_a_backup_is_proved_by_restoring_it_apart(filled: Database) -> None:
    taken = back_up(filled, AT)
    before = content(filled)
    run = run_at(filled)
    done = data.verify(run, data.one_of, data.restored_apart)
    assert done.note == "1 good"
    assert run.facts["verified"] == [{"name": taken.name, "state": "good", "how": "241 rows"}]
    assert content(filled) == before
    assert databases(filled) == "live postgres"


def test_a_backup_that_reads_well_and_cannot_be_restored_is_not_proved(filled: Database) -> None:
    taken = back_up(filled, AT)
    text = gzip.decompress(Path(taken.path).read_bytes())
    changed = text.replace(b"CREATE TABLE public.empty", b"CREATE TABLE nowhere.empty")
    Path(taken.path).write_bytes(gzip.compress(changed))
    item = manifest(taken)
    whole = dump.inspect(filled, taken.path, 0, quiet)
    item |= {"sha256": whole.sha256, "bytes": whole.bytes}
    Path(f"{taken.path}.json").write_text(json.dumps(item))
    data.verify(run_at(filled), data.one_of, data.read_through)
    run = run_at(filled)
    with pytest.raises(DataFailed) as caught:
        data.verify(run, data.one_of, data.restored_apart)
    assert "nowhere" in caught.value.why
    assert run.facts["verified"][0]["state"] == "not proved"
    assert databases(filled) == "live postgres"


def test_nothing_to_verify_is_an_error(filled: Database) -> None:
    with pytest.raises(DataFailed, match="There is no backup yet"):
        data.verify(run_at(filled), data.all_of, data.read_through)
    back_up(filled, AT)
    with pytest.raises(DataFailed, match="There is no backup other"):
        data.verify(run_at(filled, "other.sql.gz"), data.one_of, data.read_through)


def test_a_file_of_somebody_else_is_unverified_and_gets_no_manifest(filled: Database) -> None:
    text = gzip.decompress(Path(back_up(filled, AT).path).read_bytes())
    name = put(filled, "theirs.sql", text)
    found = {item.name: item.state for item in backup.listing(filled.host, filled.folder)}
    assert found[name] == "unverified"
    run = run_at(filled, name)
    data.verify(run, data.one_of, data.read_through)
    assert run.facts["verified"] == [{"name": name, "state": "good", "how": "241 rows"}]
    assert not Path(filled.folder, f"{name}.json").exists()


def test_a_manifest_without_its_file_is_a_damaged_backup(filled: Database) -> None:
    taken = back_up(filled, AT)
    Path(taken.path).unlink()
    (found,) = backup.listing(filled.host, filled.folder)
    assert (found.name, found.state) == (taken.name, "damaged")


def test_a_restore_beside_leaves_the_live_database_alone(filled: Database) -> None:
    taken = back_up(filled, AT)
    sql(filled.container, "delete from plain")
    before = content(filled)
    contents = restore.beside(filled, taken.name, "then", NOW, quiet)
    assert contents.rows == 241
    assert content(filled) == before
    assert sql(filled.container, "select count(*) from plain", "then") == "204"
    assert databases(filled) == "live postgres then"
    with pytest.raises(Invalid, match="cannot be called 'then'"):
        restore.beside(filled, taken.name, "then", NOW, quiet)
    sql(filled.container, 'drop database "then"', "postgres")


@pytest.mark.parametrize(
    "name",
    [
        *("live", "postgres", "template1", "Big", "a b", "x;y", "", "1x"),
        *("before_20260102030405", "restore_20260102030405_shop"),
    ],
)
def test_a_name_that_a_database_cannot_have_is_refused(filled: Database, name: str) -> None:
    taken = back_up(filled, AT)
    with pytest.raises(Invalid):
        restore.beside(filled, taken.name, name, NOW, quiet)
    assert databases(filled) == "live postgres"


def test_a_restore_beside_that_fails_leaves_nothing(filled: Database) -> None:
    taken = back_up(filled, AT)
    text = gzip.decompress(Path(taken.path).read_bytes()).replace(b"generated always", b"generated")
    name = put(filled, "bad.sql", text.replace(b"CREATE TABLE public.empty", b"CREATE TABLE no.e"))
    with pytest.raises(DataFailed, match="could not be loaded"):
        restore.beside(filled, name, "then", NOW, quiet)
    assert databases(filled) == "live postgres"


def test_what_a_failed_deployment_leaves_of_the_data_is_told(filled: Database) -> None:
    run = run_at(filled)
    run.kind, run.previous = "deploy", release("r1")
    run.backup = back_up(filled, AT)
    assert verdict.about_data(run) == ""
    run.facts["migrations"] = {"before": ["1"], "after": ["1"]}
    assert verdict.about_data(run) == ""
    run.facts["migrations"] = {"before": ["1"], "after": ["2"]}
    sql(filled.container, "insert into plain (word) values ('a'), ('b')")
    stays = "the database stays migrated to 2, on which r1"
    ways = f"correct and deploy again, or: inv restore {run.backup.name} (+2 rows since then)"
    for state, found in (
        ("safe", f"{stays} was good in the rehearsal"),
        ("unsafe", f"{stays} failed in the rehearsal; {ways}"),
        ("skipped", f"{stays} was not rehearsed; {ways}"),
    ):
        run.facts["rehearsal"] = {"state": state}
        assert verdict.about_data(run) == found
    run.backup = None
    assert verdict.about_data(run) == f"{stays} was not rehearsed; correct and deploy again"


def test_rows_written_until_the_swap_are_in_a_backup(filled: Database) -> None:
    taken = back_up(filled, AT)
    done = restored(filled, taken.name)
    sql(filled.container, f"alter database {done.pair.old} allow_connections true", "postgres")
    sql(filled.container, "insert into plain (word) values ('late')", done.pair.old)
    saved = restore.save_before(filled, done.pair, ORIGIN, NOW, quiet)
    restore.finish(filled, done)
    assert saved.rows == done.rows_before + 1
    assert databases(filled) == "live postgres"
    restore.beside(filled, saved.name, "copy", NOW, quiet)
    assert sql(filled.container, "select count(*) from plain where word = 'late'", "copy") == "1"
    sql(filled.container, "drop database copy", "postgres")


def test_what_a_killed_restore_left_is_backed_up_before_it_goes(filled: Database) -> None:
    taken = back_up(filled, AT)
    sql(filled.container, "insert into plain (word) values ('late')")
    done = restored(filled, taken.name)
    before = {item.name for item in backup.listing(filled.host, filled.folder)}
    assert restore.clean_up(filled, NOW, quiet) == done.pair.old
    (saved,) = (
        item for item in backup.listing(filled.host, filled.folder) if item.name not in before
    )
    assert saved.rows == done.rows_before
    assert databases(filled) == "live postgres"
    assert restore.clean_up(filled, NOW, quiet) == ""


def test_a_database_that_was_left_closed_is_opened_again(filled: Database) -> None:
    sql(filled.container, "alter database live allow_connections false", "postgres")
    assert restore.reopen(filled) == "live (closed)"
    assert sql(filled.container, "select count(*) from plain") == "204"
    assert restore.reopen(filled) == ""


def test_a_live_database_without_a_table_can_be_restored(filled: Database) -> None:
    before = content(filled)
    taken = back_up(filled, AT)
    sql(filled.container, 'drop schema public, "Odd (schema)" cascade; create schema public')
    sql(filled.container, "select lo_unlink(4711)")
    restore.finish(filled, restored(filled, taken.name))
    assert content(filled) == before


def test_a_dump_without_a_table_replaces_none(filled: Database) -> None:
    text = gzip.decompress(Path(back_up(filled, AT).path).read_bytes())
    start, end = text.index(b"--\n-- Name: "), text.index(b"--\n-- PostgreSQL database dump comp")
    name = put(filled, "nothing.sql", text[:start] + text[end:])
    with pytest.raises(DataFailed, match="no table at all") as caught:
        restore.preview(filled, name, quiet)
    assert "4 tables with 241 rows" in caught.value.why


def test_a_backup_is_a_line() -> None:
    item = {
        "name": "a.sql.gz",
        "state": "good",
        "at": AT.isoformat(),
        "why": "",
        "rows": 241,
        "bytes": 12_345_678,
        "release": "r1",
    }
    line = backups.backup_line(item, NOW)
    for word in ("a.sql.gz", "good", "24.0 hours", "12.3 MB", "241 rows", "r1"):
        assert word in line
    bad = {**item, "state": "damaged", "why": "its end is missing", "at": ""}
    assert "its end is missing" in backups.backup_line(bad, NOW)
    assert "241" not in backups.backup_line(bad, NOW)


def test_a_name_and_all_is_one_too_many() -> None:
    session = cast("Any", SimpleNamespace())
    with pytest.raises(Invalid, match="--all"):
        backups.verify(session, "a.sql.gz", every=True, by_restoring=False)
