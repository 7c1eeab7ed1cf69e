"""Backups and restores of a real PostgreSQL, and what must not go wrong with them."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.outcome import DataFailed, Invalid
from deploy.postgres import access, backup, dump, restore
from deploy.postgres.access import Database
from deploy.settings import Deploy, Proxy, Settings
from deploy.settings.schema import Database as Section
from tests.integration.deploy.conftest import SECRET, docker, sql
from tests.support.agent import eventually
from tests.support.disk import small_disk

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SCHEMA = r"""
create schema "Odd (schema)";
create table plain (id int generated always as identity primary key, word text);
create table "Odd (schema)"."Tab ""le" (a int, b int generated always as (a * 2) stored);
create table empty (x int);
create table parts (at date, n int) partition by range (at);
create table parts_1 partition of parts for values from ('2026-01-01') to ('2027-01-01');
create function trap() returns text language sql as $$
select 'COPY plain (id) FROM stdin;
1
COPY public.plain FROM stdin;
-- PostgreSQL database dump complete
' $$;
insert into plain (word) select repeat('ü' || chr(10) || chr(13) || chr(9) || '\', n)
  from generate_series(1, 200) n;
insert into plain (word) values (null), ('\.'), (''), ('COPY plain (id) FROM stdin;');
insert into "Odd (schema)"."Tab ""le" (a) select generate_series(1, 30);
insert into parts select '2026-03-01', generate_series(1, 7);
select lo_from_bytea(4711, 'large');
"""
ROWS = {
    "public.plain": 204,
    '"Odd (schema)"."Tab ""le"': 30,
    "public.empty": 0,
    "public.parts_1": 7,
}


@pytest.fixture
def filled(database: Database) -> Database:
    sql(database.container, SCHEMA)
    return database


def content(database: Database) -> str:
    """Everything that is in the database, asked in another way than by a dump."""
    return sql(
        database.container,
        """
        select md5(string_agg(t::text, ',' order by id)) from plain t;
        select md5(string_agg(t::text, ',' order by a)) from "Odd (schema)"."Tab ""le" t;
        select count(*), sum(n) from parts;
        select count(*) from empty;
        select encode(lo_get(4711), 'escape');
        select md5(trap());
        """,
    )


def files(database: Database) -> list[str]:
    return sorted(path.name for path in Path(database.folder).iterdir())


def put(database: Database, name: str, text: bytes) -> str:
    folder = Path(database.folder)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text)
    return name


def restored(database: Database, file: str) -> restore.Restored:
    said: list[str] = []
    done = restore.restore(database, file, "r1", datetime.now(UTC), said.append)
    assert any("safety backup" in line for line in said)
    return done


def databases(database: Database) -> str:
    return sql(
        database.container,
        "select string_agg(datname, ' ' order by datname) from pg_database"
        " where datname not like 'template%'",
        "postgres",
    )


def test_a_backup_is_named_private_and_described(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
    path = Path(taken.path)
    assert path.name == "shop_2026-01-02_03-04-05.sql.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert dict(taken.tables) == ROWS
    assert taken.rows == 241
    manifest = json.loads(Path(f"{taken.path}.json").read_text())
    assert manifest["release"] == "r1"
    assert manifest["sha256"] == taken.sha256
    assert manifest["pg_dump"].startswith("pg_dump")
    assert files(filled) == [path.name, f"{path.name}.json"]


def test_what_comes_back_is_what_was_there(filled: Database) -> None:
    before = content(filled)
    taken = backup.take(filled, "r1", AT)
    sql(filled.container, "drop table plain; delete from parts; select lo_unlink(4711);")
    done = restored(filled, taken.name)
    assert content(filled) == before
    assert (done.rows_before, done.rows_after) == (30, 241)
    restore.finish(filled, done)
    assert databases(filled) == "live postgres"


def test_a_restore_can_be_taken_back(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
    sql(filled.container, "insert into plain (word) values ('later')")
    before = content(filled)
    done = restored(filled, taken.name)
    assert content(filled) != before
    restore.undo(filled, done)
    assert content(filled) == before
    assert databases(filled) == "live postgres"


def test_a_plain_file_of_somebody_else_restores_too(filled: Database) -> None:
    before = content(filled)
    text = gzip.decompress(Path(backup.take(filled, "r1", AT).path).read_bytes())
    name = put(filled, "theirs.sql", text)
    sql(filled.container, "delete from plain")
    restore.finish(filled, restored(filled, name))
    assert content(filled) == before


def test_two_backups_in_one_second_are_two(filled: Database) -> None:
    first, second = backup.take(filled, "r1", AT), backup.take(filled, "r1", AT)
    assert second.name == "shop_2026-01-02_03-04-06.sql.gz"
    assert [item.name for item in backup.listing(filled.host, filled.folder)] == [
        first.name,
        second.name,
    ] or len(backup.listing(filled.host, filled.folder)) == 2


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
    taken = backup.take(filled, "r1", AT)
    before = content(filled)
    name = put(filled, "bad.sql.gz", DAMAGES[how](Path(taken.path).read_bytes()))
    with pytest.raises(DataFailed) as caught:
        restored(filled, name)
    assert caught.value.code == 9
    assert content(filled) == before
    assert databases(filled) == "live postgres"


def test_a_file_that_is_not_what_its_manifest_says_is_refused(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
    data = gzip.decompress(Path(taken.path).read_bytes())
    Path(taken.path).write_bytes(gzip.compress(data, mtime=1))
    with pytest.raises(DataFailed, match="damaged"):
        restored(filled, taken.name)


@pytest.mark.parametrize("name", ["--help.sql", "../x.sql", "a b.sql", "x.txt", "$(id).sql", ""])
def test_a_name_that_is_no_dump_is_refused(filled: Database, name: str) -> None:
    with pytest.raises(Invalid):
        restore.preview(filled, name)


def test_a_missing_file_is_missing_and_the_newest_are_named(filled: Database) -> None:
    name = "shop_2020-01-01_00-00-00.sql.gz"
    with pytest.raises(DataFailed, match="There is no such dump") as caught:
        restore.preview(filled, name)
    assert (caught.value.why, caught.value.next_step) == ("there is no backup at all", "inv backup")
    names = [backup.take(filled, "r1", AT.replace(minute=minute)).name for minute in range(5)]
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
        ("flipped", "invalid compressed data--"),
    ],
)
def test_a_damaged_file_says_how(filled: Database, how: str, says: str) -> None:
    taken = backup.take(filled, "r1", AT)
    name = put(filled, "bad.sql.gz", DAMAGES[how](Path(taken.path).read_bytes()))
    with pytest.raises(DataFailed, match="damaged") as caught:
        restore.preview(filled, name)
    assert caught.value.why.startswith(says)
    assert len(caught.value.why.splitlines()) == 1


def settings_of(database: Database) -> Settings:
    return Settings(
        deploy=Deploy(project=database.container, title="Shop", root="/srv/shop"),
        proxy=Proxy(container="c", network="n"),
        database=Section(service="localhost"),
    )


@pytest.fixture
def strict(database: Database) -> Database:
    """A database that asks for a password where the image would not."""
    hba = "sed -i '/^host/s/trust/scram-sha-256/' \"$PGDATA/pg_hba.conf\""
    docker("exec", database.container, "sh", "-c", hba)
    sql(database.container, "select pg_reload_conf()", "postgres")
    return database


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://owner:{SECRET}@localhost/live",
        f"postgresql://owner@localhost:5432/live?password={SECRET}",
        f"postgresql://owner:wrong@localhost/nowhere?password={SECRET}&dbname=live",
        f"postgresql://owner:{SECRET}@elsewhere/live?host=localhost&application_name=x",
        f"postgresql://owner:{SECRET}@localhost/live?options=-c%20geqo%3Doff&sslrootcert=/x.crt",
    ],
)
def test_an_address_that_opens_a_database(strict: Database, url: str) -> None:
    access.check_url(strict.host, settings_of(strict), url)
    assert SECRET not in strict.host.log.take().decode()


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("localhost/live?password=wrong", "password authentication failed"),
        ("localhost/live?dbname=nowhere", "does not exist"),
        ("localhost/live?user=nobody", "password authentication failed"),
        ("localhost/live?port=1", "port 1 failed"),
        ("localhost/live?sslmode=require", "does not support SSL"),
        ("localhost/live?sslmode=nonsense", "sslmode"),
        ("localhost/live?options=-c%20nonsense%3D1", "nonsense"),
    ],
)
def test_an_address_whose_query_is_wrong(strict: Database, rest: str, says: str) -> None:
    url = f"postgresql://owner:{SECRET}@{rest}"
    with pytest.raises(Invalid, match="DATABASE_URL does not open a database") as caught:
        access.check_url(strict.host, settings_of(strict), url)
    assert says in caught.value.why
    assert SECRET not in strict.host.log.take().decode()


def test_a_certificate_that_only_the_application_has_is_not_asked_for() -> None:
    url = "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/app/root.crt&unknown=1"
    told = access.variables(access.parameters(url)).split()
    assert told[-2:] == ["PGSSLMODE=require", "PGCONNECT_TIMEOUT=5"]
    assert len(told) == 7


@pytest.mark.parametrize(
    "url", ["postgresql://h:port/d", "postgresql://[::1/d", "postgresql://u:p@h/d?password=a%0Ab"]
)
def test_an_address_that_cannot_be_read(url: str) -> None:
    with pytest.raises(Invalid, match="DATABASE_URL cannot be read"):
        access.parameters(url)


def test_a_preview_tells_both_sides(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
    sql(filled.container, "delete from plain")
    seen = restore.preview(filled, taken.name)
    assert (seen.rows_now, seen.rows_then, seen.at) == (37, 241, AT.isoformat())
    assert taken.name in seen.as_text()


def test_a_killed_pg_dump_leaves_no_backup(filled: Database) -> None:
    # A lock that pg_dump has to wait for holds it until it is killed.
    locker = ("psql", "-X", "-U", "owner", "-d", "live", "-c")
    held = "begin; lock plain; select pg_sleep(60)"
    words = ("docker", "exec", filled.container, *locker, held)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as holder:
        killer = threading.Thread(target=_end_dump, args=(filled,))
        killer.start()
        with pytest.raises(DataFailed, match="could not be backed up"):
            backup.take(filled, "r1", AT)
        killer.join()
        sql(
            filled.container,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where query like 'begin; lock%' and pid <> pg_backend_pid()",
        )
        holder.wait(30)
    assert files(filled) == []
    assert backup.listing(filled.host, filled.folder) == ()


def _end_dump(database: Database) -> None:
    words = "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    where = " where application_name = 'pg_dump' and wait_event_type = 'Lock'"
    while sql(database.container, words + where, "postgres") == "0":
        pass


def test_a_stopped_database_fails_the_backup_and_spares_the_old_one(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
    gone = replace(filled, container="no-such-container")
    with pytest.raises(DataFailed) as caught:
        backup.take(gone, "r1", AT.replace(minute=59))
    assert "no-such-container" in caught.value.why
    assert files(filled) == [taken.name, f"{taken.name}.json"]


def test_an_empty_database_after_a_full_one_is_no_backup(filled: Database) -> None:
    backup.take(filled, "r1", AT)
    sql(filled.container, "drop database live with (force)", "postgres")
    sql(filled.container, "create database live", "postgres")
    with pytest.raises(DataFailed) as caught:
        backup.take(filled, "r1", AT.replace(minute=59))
    assert "no table" in caught.value.why


def test_a_full_disk_fails_the_backup_and_leaves_nothing(filled: Database) -> None:
    with small_disk(Path(filled.folder)):
        with pytest.raises(DataFailed) as caught:
            backup.take(filled, "r1", AT)
        assert "free" in caught.value.why
        assert files(filled) == []


COMING_BACK = """
rm -f /tmp/stop
for client in 1 2 3 4 5 6; do
  while [ ! -e /tmp/stop ]; do
    psql -X -U owner -d live -c 'select pg_sleep(5)' >/dev/null 2>&1
  done &
done
wait
"""


def test_clients_that_keep_coming_back_do_not_stop_the_swap(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
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
    taken = backup.take(filled, "r1", AT)
    restore.finish(filled, restored(filled, taken.name))
    told = filled.host.log.take().decode()
    assert "pg_dump" in told
    assert SECRET not in told


def test_a_garbled_manifest_is_a_damaged_backup(filled: Database) -> None:
    taken = backup.take(filled, "r1", AT)
    for text in ("{", "[]", '{"at": 3}', ""):
        Path(f"{taken.path}.json").write_text(text)
        (found,) = backup.listing(filled.host, filled.folder)
        assert found.state == "damaged"
        assert found.name == taken.name


def test_a_download_is_whole_or_not_there(filled: Database, tmp_path: Path) -> None:
    taken = backup.take(filled, "r1", AT)
    copy = backup.download(filled.host, taken, tmp_path / "home")
    assert copy.read_bytes() == Path(taken.path).read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    other = replace(taken, name="other.sql.gz", sha256="0" * 64)
    with pytest.raises(DataFailed, match="differs"):
        backup.download(filled.host, other, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == [taken.name]


def test_contents_name_what_is_wrong() -> None:
    good = "rows 2 COPY public.a (x) FROM stdin;\nheader 1\ncomplete 1\nconnect 0\n"
    found = dump.parse(f"{good}sha256 ab\nbytes 3\n", "f")
    assert (found.tables, found.rows, found.bytes) == ({"public.a": 2}, 2, 3)
    for broken in ("header", "complete"):
        with pytest.raises(DataFailed, match="damaged"):
            dump.parse(good.replace(f"{broken} 1", f"{broken} 0"), "f")
