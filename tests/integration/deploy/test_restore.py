"""Restores into a real PostgreSQL, and what must not go wrong with them."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.outcome import DataFailed, Invalid
from deploy.postgres import restore
from deploy.postgres.access import Database
from tests.support.agent import eventually
from tests.support.container import EACH_VERSION, SECRET, docker, sql
from tests.support.dumps import AT, back_up, content, databases, put, quiet, restored


@EACH_VERSION
def test_what_comes_back_is_what_was_there(filled: Database) -> None:
    before = content(filled)
    taken = back_up(filled, AT)
    sql(filled.container, "drop table plain; delete from parts; select lo_unlink(4711);")
    done = restored(filled, taken.name)
    assert content(filled) == before
    assert (done.rows_before, done.rows_after) == (30, 241)
    restore.finish(filled, done)
    assert databases(filled) == "live postgres"


@EACH_VERSION
def test_a_restore_can_be_taken_back(filled: Database) -> None:
    taken = back_up(filled, AT)
    sql(filled.container, "insert into plain (word) values ('later')")
    before = content(filled)
    done = restored(filled, taken.name)
    assert content(filled) != before
    restore.undo(filled, done)
    assert content(filled) == before
    assert databases(filled) == "live postgres"


def test_a_plain_file_of_somebody_else_restores_too(filled: Database) -> None:
    before = content(filled)
    text = gzip.decompress(Path(back_up(filled, AT).path).read_bytes())
    name = put(filled, "theirs.sql", text)
    sql(filled.container, "delete from plain")
    restore.finish(filled, restored(filled, name))
    assert content(filled) == before


def custom(database: Database) -> bytes:
    """A dump in pg_dump's own format."""
    words = ("docker", "exec", database.container, "pg_dump", "-Fc", "-U", "owner", "-d", "live")
    return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout


def zstd(text: bytes) -> bytes:
    words = ("zstd", "-qc")
    return subprocess.run(words, input=text, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("name", ["theirs.dump", "theirs.sql.zst"])
def test_the_forms_that_others_dump_in_restore_too(filled: Database, name: str) -> None:
    before = content(filled)
    text = gzip.decompress(Path(back_up(filled, AT).path).read_bytes())
    data = custom(filled) if name.endswith("dump") else zstd(text)
    put(filled, name, data)
    sql(filled.container, "delete from plain")
    assert restore.preview(filled, name, quiet).rows_then == 241
    restore.finish(filled, restored(filled, name))
    assert content(filled) == before


@pytest.mark.parametrize("name", ["theirs.dump", "theirs.sql.zst"])
@pytest.mark.parametrize("cut", [0.2, 0.9])
def test_of_such_a_form_half_is_refused(filled: Database, name: str, cut: float) -> None:
    text = gzip.decompress(Path(back_up(filled, AT).path).read_bytes())
    data = custom(filled) if name.endswith("dump") else zstd(text)
    put(filled, name, data[: int(len(data) * cut)])
    before = content(filled)
    with pytest.raises(DataFailed, match="damaged"):
        restore.preview(filled, name, quiet)
    with pytest.raises(DataFailed):
        restored(filled, name)
    assert content(filled) == before
    assert databases(filled) == "live postgres"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:],
    "short": lambda data: data[: len(data) // 2],
    "rows gone": lambda data: gzip.compress(gzip.decompress(data).split(b"COPY public.plain")[0]),
    "crlf": lambda data: gzip.compress(gzip.decompress(data).replace(b"\n", b"\r\n")),
    "no end": lambda data: gzip.compress(gzip.decompress(data).replace(b"dump complete", b"dump")),
    "elsewhere": lambda data: gzip.compress(
        gzip.decompress(data).replace(b"\nSET lock", b"\n\\connect postgres\nSET lock", 1)
    ),
    "more behind": lambda data: gzip.compress(gzip.decompress(data) + b"drop table plain;\n"),
    "other key": lambda data: gzip.compress(
        re.sub(rb"\\unrestrict \w+", rb"\\unrestrict other", gzip.decompress(data))
    ),
    "empty": lambda _data: b"",
    "no dump": lambda _data: gzip.compress(b"hello\n"),
}


@pytest.mark.parametrize("how", sorted(DAMAGES))
def test_a_damaged_dump_is_refused_and_nothing_changes(filled: Database, how: str) -> None:
    taken = back_up(filled, AT)
    before = content(filled)
    name = put(filled, "bad.sql.gz", DAMAGES[how](Path(taken.path).read_bytes()))
    with pytest.raises(DataFailed) as caught:
        restored(filled, name)
    assert caught.value.code == 9
    assert content(filled) == before
    assert databases(filled) == "live postgres"


def test_a_file_that_is_not_what_its_manifest_says_is_refused(filled: Database) -> None:
    taken = back_up(filled, AT)
    data = gzip.decompress(Path(taken.path).read_bytes())
    Path(taken.path).write_bytes(gzip.compress(data, mtime=1))
    with pytest.raises(DataFailed, match="damaged"):
        restored(filled, taken.name)


@pytest.mark.parametrize("name", ["--help.sql", "../x.sql", "a b.sql", "x.txt", "$(id).sql", ""])
def test_a_name_that_is_no_dump_is_refused(filled: Database, name: str) -> None:
    with pytest.raises(Invalid):
        restore.preview(filled, name, quiet)


def test_a_missing_file_is_missing_and_the_newest_are_named(filled: Database) -> None:
    name = "shop_2020-01-01_00-00-00.sql.gz"
    with pytest.raises(DataFailed, match="There is no such dump") as caught:
        restore.preview(filled, name, quiet)
    assert (caught.value.why, caught.value.next_step) == ("there is no backup at all", "inv backup")
    names = [back_up(filled, AT.replace(minute=minute)).name for minute in range(5)]
    Path(filled.folder, names[4]).unlink()  # its manifest is still there
    for file in (name, names[4], f"{filled.folder}/{name}"):
        with pytest.raises(DataFailed, match="There is no such dump") as caught:
            restored(filled, file)
        assert caught.value.where == f"local:{filled.folder}/{Path(file).name}"
        assert caught.value.why == f"the newest are {names[3]}, {names[2]}, {names[1]}"
        assert names[3] in caught.value.next_step


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("short", "unexpected end of the compressed file"),
        ("empty", "unexpected end of the compressed file"),
        ("flipped", "invalid compressed data: incorrect data check"),
    ],
)
def test_a_damaged_file_says_how(filled: Database, how: str, says: str) -> None:
    taken = back_up(filled, AT)
    name = put(filled, "bad.sql.gz", DAMAGES[how](Path(taken.path).read_bytes()))
    with pytest.raises(DataFailed, match="damaged") as caught:
        restore.preview(filled, name, quiet)
    assert caught.value.why.startswith(says)
    assert len(caught.value.why.splitlines()) == 1


def test_a_preview_tells_both_sides(filled: Database) -> None:
    taken = back_up(filled, AT)
    sql(filled.container, "delete from plain")
    seen = restore.preview(filled, taken.name, quiet)
    assert (seen.rows_now, seen.rows_then, seen.at) == (37, 241, AT.isoformat())
    assert taken.name in seen.as_text(AT + timedelta(hours=5))


COMING_BACK = """
rm -f /tmp/stop
for client in 1 2 3 4 5 6; do
  while [ ! -e /tmp/stop ]; do
    psql -X -U owner -d live -c 'select pg_sleep(5)' >/dev/null 2>&1
  done &
done
wait
"""


@EACH_VERSION
def test_clients_that_keep_coming_back_do_not_stop_the_swap(filled: Database) -> None:
    taken = back_up(filled, AT)
    sql(filled.container, "delete from plain")
    docker("exec", "--detach", filled.container, "sh", "-c", COMING_BACK)
    others = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'"
    eventually(lambda: sql(filled.container, others, "postgres") == "6")
    try:
        done = restored(filled, taken.name)
    finally:
        docker("exec", filled.container, "touch", "/tmp/stop")
    kill = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where query like '%sleep%'"
    )
    sql(filled.container, f"{kill} and pid <> pg_backend_pid()", "postgres")
    restore.finish(filled, done)
    assert sql(filled.container, "select count(*) from plain") == "204"


def test_no_password_is_in_the_log(filled: Database) -> None:
    taken = back_up(filled, AT)
    restore.finish(filled, restored(filled, taken.name))
    told = filled.host.log.take().decode()
    assert "pg_dump" in told
    assert SECRET not in told
