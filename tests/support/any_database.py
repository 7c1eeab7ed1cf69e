# ruff: noqa: S608 - what is put into SQL here is quoted, or constant
"""Any database: its DDL and rows for hypothesis, and all of it as the server's catalog tells it."""

from __future__ import annotations

import contextlib

import psycopg2
from hypothesis import strategies as st

from tests.support.container import SECRET, address

# A type, and texts of values that it takes; NULL besides.
TYPES: dict[str, tuple[str, ...]] = {
    "smallint": ("-32768", "0", "32767"),
    "integer": ("1", "-2147483648"),
    "bigint": ("9223372036854775807",),
    "numeric(20, 5)": ("12345.67891", "NaN"),
    "numeric": ("1e-200", "123456789012345678901234567890.5", "-0.0"),
    "real": ("1.1", "-Infinity", "3.4e38"),
    "double precision": ("0.1", "NaN", "5e-324"),
    "money": ("-12.34",),
    "boolean": ("t", "f"),
    "text": ("", "\\.", "\\N", "a\tb\nc\rd\\", "ü€😀", "COPY x FROM stdin;", "'\"$$", "\x01\x7f"),
    "varchar(10)": ("zwölf Zei", " "),
    "char(5)": ("ab", ""),
    '"char"': ("x",),
    "name": ("some",),
    "bytea": ("\\x", "\\x00ff0a5c2e"),
    "date": ("2026-01-31", "infinity", "0044-03-15 BC"),
    "time": ("23:59:59.999999", "24:00:00"),
    "timetz": ("12:00:00+05:30",),
    "timestamp": ("2026-01-01 00:00:00.000001", "-infinity"),
    "timestamptz": ("2026-03-29 02:30:00+01", "infinity"),
    "interval": ("1 year -2 days 03:04:05.6", "-00:00:01"),
    "uuid": ("00000000-0000-0000-0000-00000000000f",),
    "json": ('{"b": 1,  "a": [null, "\\u00e9"]}',),
    "jsonb": ('{"a": {"b": [1.50, "\\n"]}}', "null"),
    "xml": ("<a>&lt;</a>",),
    "inet": ("::1/64", "10.0.0.1"),
    "cidr": ("10.0.0.0/8",),
    "macaddr": ("08:00:2b:01:02:03",),
    "bit(3)": ("101",),
    "bit varying": ("", "1"),
    "point": ("(1.5,-2)",),
    "box": ("(1,1),(0,0)",),
    "path": ("[(0,0),(1,1)]",),
    "polygon": ("((0,0),(1,1),(2,0))",),
    "circle": ("<(0,0),1>",),
    "int4range": ("[1,10)", "empty", "(,5)"),
    "tstzrange": ('["2026-01-01 00:00:00+00",)',),
    "nummultirange": ("{[1,2),[3.5,4]}",),
    "tsvector": ("'fat':2A 'rat':3",),
    "tsquery": ("'fat' & !'rat'",),
    "text[]": ("{}", '{a,NULL,"b \\"c\\",\\\\",""}', "[2:3]={x,y}"),
    "integer[][]": ("{{1,2},{3,4}}",),
    "pg_lsn": ("16/B374D848",),
    "oid": ("4294967295",),
    "citext": ("MiXed",),
    "hstore": ('"a b"=>NULL, ü=>"1"',),
    "ltree": ("Top.Science",),
    "odd.mood": ("sad", "so-so 😀"),
    "odd.positive": ("7",),
    "odd.pair": ('(1,"a ""b"",")', "(,)"),
}
HEAD = """
create extension citext; create extension hstore; create extension ltree;
create extension pg_trgm; create extension "uuid-ossp";
create schema odd; create schema "Ü ""s"" x";
create type odd.mood as enum ('sad', 'so-so 😀', 'O''K');
create domain odd.positive as integer check (value > 0);
create type odd.pair as (a integer, b text);
"""
NAMES = st.one_of(
    st.sampled_from(
        [
            *("t", "T", "select", "a b", "a.b", 'q"q', "it's", "ü", "😀", "two\nlines", "tab\t"),
            *("back\\slash", "x FROM stdin;\ny", "-- Name: a; Type: TABLE DATA; ", "%s %I"),
            *("$1", "x" * 63),
        ]
    ),
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\0"),
        min_size=1,
        max_size=12,
    ),
).filter(lambda name: name not in ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"))
SCHEMAS = st.sampled_from(["public", "odd", 'Ü "s" x'])


def ident(name: str) -> str:
    """Quote a name."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Quote a value."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


@st.composite
def columns(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Draw names and types of columns."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    return [(name, draw(st.sampled_from(sorted(TYPES)))) for name in names]


@st.composite
def rows(draw: st.DrawFn, given: list[tuple[str, str]]) -> list[str]:
    """Draw rows for columns, as SQL writes them."""

    def value(kind: str) -> str:
        text = draw(st.one_of(st.none(), st.sampled_from(TYPES[kind])))
        return "null" if text is None else f"{literal(text)}::{kind}"

    count = draw(st.integers(0, 4))
    return [f"({', '.join(value(kind) for _, kind in given)})" for _ in range(count)]


@st.composite
def tables(draw: st.DrawFn, number: int) -> str:
    """Draw a table with its rows."""
    schema, name = draw(SCHEMAS), f"{number}{draw(NAMES)}".encode()[:60].decode(errors="ignore")
    full = f"{ident(schema)}.{ident(name)}"
    fields = draw(columns())
    parts = [f"{ident(column)} {kind}" for column, kind in fields]
    parts += draw(st.sampled_from([[], *([key] for key in KEYS)]))
    parts += draw(st.sampled_from([[], GENERATED]))
    unlogged = draw(st.sampled_from(["", "", "unlogged"]))
    made = [f"create {unlogged} table {full} ({', '.join(parts)});"]
    names = ", ".join(ident(column) for column, _ in fields)
    made += [f"insert into {full} ({names}) values {row};" for row in draw(rows(fields))]
    made += draw(
        st.sampled_from([[], [f"comment on table {full} is 'a\nCOPY t (a) FROM stdin;';"]])
    )
    made += draw(st.sampled_from([[], [f'create view {full[:-1]}v" as select * from {full};']]))
    made += draw(st.sampled_from([[], [f"alter table {full} enable row level security;"]]))
    return "\n".join(made)


KEYS = (
    "the_key bigint generated always as identity (start -5 minvalue -9 increment 3) primary key",
    "the_key integer generated by default as identity unique",
    "the_key serial",
)
GENERATED = [
    "base integer default 3 not null check (base < 10)",
    "double integer generated always as (base * 2) stored",
]
EXTRAS: dict[str, str] = {}
EXTRAS["partitions"] = """
create table odd.parts (at date not null default '2026-06-01', "N" int, note text,
  primary key (at, "N")) partition by range (at);
create table odd.parts_old partition of odd.parts for values from (minvalue) to ('2026-01-01')
  partition by list ("N");
create table odd.parts_old_1 partition of odd.parts_old for values in (1, 2);
create table "Ü ""s"" x".rest partition of odd.parts default;
create index on odd.parts using btree (note desc nulls last) where note <> '';
insert into odd.parts values ('2025-01-01', 1, 'x'), ('2025-01-01', 2, ''), (default, 7, null);
"""
EXTRAS["related"] = """
create table "Ü ""s"" x".child (id int primary key, up int references "Ü ""s"" x".child,
  word citext collate "C" default 'don''t', at timestamptz default now());
insert into "Ü ""s"" x".child (id, up) values (1, 2), (2, null);
create index child_trgm on "Ü ""s"" x".child using gin ((word::text) gin_trgm_ops);
create index on "Ü ""s"" x".child (lower(word::text)) include (at);
create function odd.trigger() returns trigger language plpgsql as $f$
begin
  -- PostgreSQL database dump complete
  new.at = '2000-01-01';
  return new;
end $f$;
create trigger "On It" before insert on "Ü ""s"" x".child
  for each row execute function odd.trigger();
create table odd.busy (room int, during tstzrange, exclude using gist (during with &&),
  constraint later unique (room) deferrable initially deferred);
create policy "p q" on odd.busy for select using (room > 0);
create statistics odd.told on room, during from odd.busy;
create rule nothing as on delete to odd.busy do instead nothing;
create publication told for table odd.busy;
create function odd.seen() returns event_trigger language plpgsql as 'begin end';
create event trigger seen on ddl_command_end execute function odd.seen();
create aggregate odd.total (int) (sfunc = int4pl, stype = int, initcond = '0');
alter default privileges in schema odd grant select on tables to pg_monitor;
grant select (room) on odd.busy to pg_monitor with grant option;
create materialized view odd.summary as select count(*) as n from "Ü ""s"" x".child;
"""
EXTRAS["large"] = """
select lo_from_bytea(4711, '\\x00ff5c2e0a'); select lo_create(4712);
comment on large object 4711 is 'large';
"""
EXTRAS["sequences"] = """
create sequence odd."Seq'uence" as smallint start 5 increment -2 minvalue -10 maxvalue 5 cycle;
select nextval('odd."Seq''uence"') from generate_series(1, 3);
create sequence unused start 42; create sequence odd.set_only;
select setval('odd.set_only', 9, false);
"""
EXTRAS["trap"] = """
create function public.trap() returns text language sql as $f$ select '
SELECT pg_catalog.setval(''public.nowhere'', 5, true);
CREATE EXTENSION IF NOT EXISTS other;
COPY public.nowhere (a) FROM stdin;
\\.
' $f$;
"""
EXTRAS["settings"] = """
alter database live set search_path to odd, "Ü ""s"" x", public;
alter database live set timezone to 'Asia/Kathmandu';
alter database live set default_transaction_read_only to on;
alter role owner in database live set statement_timeout to '7min';
revoke connect on database live from public; grant create on database live to pg_monitor;
comment on database live is 'it''s alive'; alter database live connection limit 77;
"""


@st.composite
def any_database(draw: st.DrawFn) -> str:
    """Draw what makes a database."""
    parts = [HEAD]
    parts += [draw(tables(number)) for number in range(draw(st.integers(0, 4)))]
    parts += draw(st.lists(st.sampled_from(sorted(EXTRAS.values())), unique=True))
    return "\n".join(parts)


# All that is drawn now and then, and each type with each value.
FULL = "\n".join(
    [
        HEAD,
        *(
            f"create table all_{number} (a {kind}); insert into all_{number} values (null)"
            + "".join(f", ({literal(text)})" for text in texts)
            + ";"
            for number, (kind, texts) in enumerate(sorted(TYPES.items()))
        ),
        *EXTRAS.values(),
    ]
)


MINE = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
FACTS = {
    "database": """
        select pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datconnlimit, dattablespace,
          to_jsonb(d) - array['oid', 'datname', 'datfrozenxid', 'datminmxid', 'datallowconn'],
          shobj_description(oid, 'pg_database'), (select array_agg((setrole, setconfig)::text
            order by setrole) from pg_db_role_setting where setdatabase = d.oid)
        from pg_database d where datname = current_database()""",
    "relations": f"""
        select n.nspname, c.relname, c.relkind, c.relpersistence, c.relrowsecurity,
          c.relispartition, c.relreplident, pg_get_userbyid(c.relowner),
          c.relacl::text, c.reloptions,
          pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), obj_description(c.oid),
          case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end
        from pg_class c join pg_namespace n on n.oid = relnamespace where {MINE}""",
    "columns": f"""
        select n.nspname, c.relname, a.attname, a.attnum, format_type(atttypid, atttypmod),
          attnotnull, attidentity, attgenerated, attcollation::regcollation::text, attstorage,
          pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute a join pg_class c on c.oid = attrelid
          join pg_namespace n on n.oid = relnamespace
          left join pg_attrdef d on (adrelid, adnum) = (attrelid, attnum)
        where {MINE} and attnum > 0 and not attisdropped""",
    "constraints": f"""
        select n.nspname, conname, conrelid::regclass::text, contypid::regtype::text, contype,
          condeferrable, convalidated, pg_get_constraintdef(k.oid)
        from pg_constraint k join pg_namespace n on n.oid = connamespace where {MINE}""",
    "indexes": f"""
        select n.nspname, c.relname, pg_get_indexdef(c.oid), indisvalid, indisprimary
        from pg_index i join pg_class c on c.oid = indexrelid
          join pg_namespace n on n.oid = relnamespace where {MINE}""",
    "functions": f"""
        select n.nspname, proname, case when prokind <> 'a' then pg_get_functiondef(p.oid) end
        from pg_proc p join pg_namespace n on n.oid = pronamespace where {MINE}""",
    "types": f"""
        select n.nspname, typname, typtype, typnotnull, typdefault,
          (select array_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = t.oid)
        from pg_type t join pg_namespace n on n.oid = typnamespace where {MINE}""",
    "triggers": "select pg_get_triggerdef(oid), tgenabled from pg_trigger where not tgisinternal",
    "sequences": """
        select n.nspname, c.relname, s.seqtypid::regtype::text, seqstart, seqincrement, seqmax,
          seqmin, seqcache, seqcycle, pg_sequence_last_value(c.oid)
        from pg_sequence s join pg_class c on c.oid = seqrelid
          join pg_namespace n on n.oid = relnamespace""",
    "extensions": "select extname, extversion, extnamespace::regnamespace::text from pg_extension",
    "large objects": """
        select oid, lo_get(oid), pg_get_userbyid(lomowner), obj_description(oid, 'pg_largeobject')
        from pg_largeobject_metadata""",
    "policies": "select polname, pg_get_expr(polqual, polrelid) from pg_policy",
    "rules": f"""
        select pg_get_ruledef(r.oid) from pg_rewrite r join pg_class c on c.oid = ev_class
          join pg_namespace n on n.oid = relnamespace where {MINE}""",
    "statistics": "select pg_get_statisticsobjdef(oid) from pg_statistic_ext",
    "publications": "select pubname, pubinsert, pubtruncate from pg_publication",
    "published": "select * from pg_publication_tables",
    "event triggers": "select evtname, evtevent, evtfoid::regproc::text from pg_event_trigger",
    "aggregates": f"""
        select aggfnoid::text, aggtransfn::text, agginitval from pg_aggregate
          join pg_proc p on p.oid = aggfnoid join pg_namespace n on n.oid = pronamespace
        where {MINE}""",
    "default rights": "select defaclobjtype, defaclacl::text from pg_default_acl",
    "column rights": "select attrelid::regclass::text, attname, attacl::text from pg_attribute"
    " where attacl is not null and attrelid > 16383",
    "schemas": f"""
        select nspname, pg_get_userbyid(nspowner), nspacl::text from pg_namespace n where {MINE}""",
}
TABLES = f"""
    select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = relnamespace
    where c.relkind in ('r', 'p', 'm', 'v') and {MINE}"""


def everything(container: str, name: str = "live") -> dict[str, list[str]]:
    """Return all that is in a database, by what it is."""
    given = f"host={address(container)} user=owner password={SECRET} dbname={name}"
    plain = "-c search_path=pg_catalog -c timezone=UTC -c extra_float_digits=1"
    with (
        contextlib.closing(psycopg2.connect(given, options=plain)) as link,
        link.cursor() as cursor,
    ):

        def asked(text: str) -> list[str]:
            cursor.execute(text)
            return sorted(
                str([bytes(item) if isinstance(item, memoryview) else item for item in row])
                for row in cursor.fetchall()
            )

        found = {kind: asked(text) for kind, text in FACTS.items()}
        cursor.execute(TABLES)
        for schema, table in cursor.fetchall():
            full = f"{ident(schema)}.{ident(table)}"
            found[f"rows of {schema}.{table}"] = asked(
                f"select count(*), md5(string_agg(t::text, ',' order by t::text)) from {full} t"
            )
    return found
