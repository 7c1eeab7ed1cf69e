"""A database with something odd in it, and ways to look at it from outside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from deploy.postgres import backup, restore
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup, Origin
from tests.support.container import sql

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORIGIN = Origin("r1", "c0ffee", ("0001",))

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


def content(database: Database, name: str = "live") -> str:
    """Everything that is in the database, asked in another way than by a dump."""
    return sql(
        database.container,
        """
        select (select md5(string_agg(t::text, ',' order by id)) from plain t),
          (select md5(string_agg(t::text, ',' order by a)) from "Odd (schema)"."Tab ""le" t),
          (select count(*) from parts), (select sum(n) from parts), (select count(*) from empty),
          encode(lo_get(4711), 'escape'), md5(trap());
        """,
        name,
    )


def back_up(database: Database, at: datetime) -> Backup:
    return backup.take(database, ORIGIN, at, quiet)


def quiet(_text: str) -> None:
    """Hear nothing."""


def files(database: Database) -> list[str]:
    return sorted(path.name for path in Path(database.folder).iterdir())


def put(database: Database, name: str, text: bytes) -> str:
    folder = Path(database.folder)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text)
    return name


def restored(database: Database, file: str) -> restore.Restored:
    said: list[str] = []
    done = restore.restore(database, file, ORIGIN, datetime.now(UTC), said.append)
    assert any("safety backup" in line for line in said)
    return done


def databases(database: Database) -> str:
    return sql(
        database.container,
        "select string_agg(datname, ' ' order by datname) from pg_database"
        " where datname not like 'template%'",
        "postgres",
    )
