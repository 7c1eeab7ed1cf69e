"""What waiting migrations would do to users, told from their text alone."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest
from alembic.script.revision import Revision, RevisionMap
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.postgres.changes import in_sql
from deploy.postgres.operations import look, pending

ROOT = Path(__file__).resolve().parents[3]
Graph = dict[str, tuple[str, ...]]


def migration(upgrade: str, revision: str = "0001", down: object = None, more: str = "") -> str:
    head = "import sqlalchemy as sa\nfrom alembic import op\n"
    who = f"revision = {revision!r}\ndown_revision = {down!r}\n{dedent(more)}\n"
    body = indent(dedent(upgrade).strip() or "pass", "    ")
    return f"{head}{who}\ndef upgrade():\n{body}\n\ndef downgrade():\n    op.drop_table('all')\n"


def said(upgrade: str, more: str = "") -> list[str]:
    found = look({"0001_x.py": migration(upgrade, more=more)}, [])
    assert all(sentence.startswith("0001_x.py: ") for sentence in found)
    return [sentence.removeprefix("0001_x.py: ") for sentence in found]


def executed(sql: str) -> list[str]:
    return said(f"op.execute({sql!r})")


ALONE = "adds column users.age as NOT NULL without a default"
OPERATIONS = {
    "op.drop_table('users')": ["drops table users"],
    "op.drop_table(table_name='users', schema='shop')": ["drops table shop.users"],
    "op.drop_table('users', schema='public')": ["drops table users"],
    "op.drop_column('users', 'name')": ["drops column users.name"],
    "op.drop_column(table_name='users', column_name='name')": ["drops column users.name"],
    "op.drop_index(op.f('ix_users'), table_name='users')": ["drops index ix_users"],
    "op.drop_constraint('uq', 'users', type_='unique')": ["drops constraint uq on users"],
    "op.rename_table('users', 'people')": ["renames table users to people"],
    "op.alter_column('users', 'a', new_column_name='b')": ["renames column users.a to b"],
    "op.alter_column('users', 'a', nullable=False)": ["sets column users.a to NOT NULL"],
    "op.alter_column('users', 'a', type_=sa.Text())": ["changes the type of column users.a"],
    "op.alter_column('users', 'a', nullable=True, existing_type=sa.Text())": [],
    "op.alter_column('users', 'a', server_default='1')": [],
    "op.add_column('users', sa.Column('age', sa.Integer, nullable=False))": [ALONE],
    "op.add_column('users', sa.Column('age', sa.Integer, False, nullable=False))": [ALONE],
    "op.add_column('users', sa.Column('age', nullable=False, server_default=None))": [ALONE],
    "op.add_column('users', sa.Column('age', nullable=False, server_default='0'))": [],
    "op.add_column('users', sa.Column('age', sa.Identity(), nullable=False))": [],
    "op.add_column('users', sa.Column('age', sa.Integer))": [],
    "op.add_column('users', sa.Column('age', sa.Integer, primary_key=True))": [ALONE],
    "op.add_column('users', age)": ["adds a column to users that is made at run time"],
    "age = sa.Column('age', nullable=False)\nop.add_column('users', age)": [ALONE],
    "op.add_column('users', sa.Column('org', sa.ForeignKey('orgs.id'), unique=True, index=True))": [
        "adds foreign key org on users without NOT VALID",
        "adds unique constraint org on users without USING INDEX",
        "builds index <unnamed> on users without CONCURRENTLY",
    ],
    "op.create_index('ix', 'users', ['a'])": ["builds index ix on users without CONCURRENTLY"],
    "op.create_index('ix', 'users', ['a'], postgresql_concurrently=True)": [],
    "op.create_unique_constraint('uq', 'users', ['a'])": [
        "adds unique constraint uq on users without USING INDEX"
    ],
    "op.create_primary_key('pk', 'users', ['a'])": [
        "adds primary key pk on users without USING INDEX"
    ],
    "op.create_foreign_key(None, 'users', 'orgs', ['a'], ['b'])": [
        "adds foreign key <unnamed> on users without NOT VALID"
    ],
    "op.create_foreign_key('fk', 'users', 'orgs', ['a'], ['b'], postgresql_not_valid=True)": [],
    "op.create_check_constraint('ck', 'users', 'a > 0')": [
        "adds check constraint ck on users without NOT VALID"
    ],
    "op.create_table('users', sa.Column('id', sa.Integer, nullable=False))": [],
    "op.bulk_insert(table, [])": [],
    "op.drop_column(table, 'name')": ["drops column <table>.name"],
    "op.drop_column('us' 'ers', 'na' + 'me')": ["drops column users.name"],
    "op.drop_table('a\\x1b[31m')": [r"drops table 'a\x1b[31m'"],
    "Base.metadata.create_all(op.get_bind())": ["runs SQL that is made at run time"],
}
BATCHES = {
    "with op.batch_alter_table('users') as batch_op:\n    batch_op.drop_column('a')": [
        "drops column users.a"
    ],
    "with op.batch_alter_table('users', schema='shop') as batch:\n    batch.drop_index('ix')\n"
    "    batch.create_foreign_key('fk', 'orgs', ['a'], ['b'])\n"
    "    batch.alter_column('a', nullable=False)\n"
    "    batch.add_column(sa.Column('age', nullable=False))": [
        "drops index ix",
        "adds foreign key fk on shop.users without NOT VALID",
        "sets column shop.users.a to NOT NULL",
        "adds column shop.users.age as NOT NULL without a default",
    ],
    "with op.batch_alter_table('a') as b:\n    b.drop_column('x')\n"
    "with op.batch_alter_table('b') as b:\n    b.drop_column('y')": [
        "drops column a.x",
        "drops column b.y",
    ],
    "with op.batch_alter_table('b') as b:\n  with b.batch_alter_table('c') as b:\n"
    "    b.drop_column('y')": ["drops column c.y"],
}
SQL = {
    "DROP TABLE users": ["drops table users"],
    'drop  table if exists "Users", shop.orgs cascade;': [
        "drops table Users",
        "drops table shop.orgs",
    ],
    "DROP INDEX CONCURRENTLY IF EXISTS ix": ["drops index ix"],
    "DROP MATERIALIZED VIEW v": ["drops view v"],
    "ALTER TABLE users DROP COLUMN name, DROP COLUMN IF EXISTS age": [
        "drops column users.name",
        "drops column users.age",
    ],
    "ALTER TABLE ONLY public.users DROP name": ["drops column users.name"],
    "ALTER TABLE users DROP CONSTRAINT uq": ["drops constraint uq on users"],
    "ALTER TABLE users ALTER COLUMN a DROP NOT NULL, ALTER b DROP DEFAULT": [],
    "ALTER TABLE users RENAME TO people": ["renames table users to people"],
    "ALTER TABLE users RENAME COLUMN a TO b": ["renames column users.a to b"],
    "ALTER TABLE users RENAME a TO b": ["renames column users.a to b"],
    "ALTER TABLE users RENAME CONSTRAINT a TO b": [],
    "ALTER TABLE users ALTER COLUMN a TYPE numeric(10, 2) USING (a::numeric)": [
        "changes the type of column users.a"
    ],
    "ALTER TABLE users ALTER a SET DATA TYPE text": ["changes the type of column users.a"],
    "ALTER TABLE users ALTER COLUMN a SET NOT NULL": ["sets column users.a to NOT NULL"],
    "ALTER TABLE users ADD COLUMN age int NOT NULL": [ALONE],
    "ALTER TABLE users ADD age int DEFAULT 0 NOT NULL": [],
    "ALTER TABLE users ADD COLUMN age bigserial NOT NULL": [],
    "ALTER TABLE users ADD COLUMN IF NOT EXISTS age int": [],
    "ALTER TABLE users ADD COLUMN org int REFERENCES orgs (id)": [
        "adds foreign key org on users without NOT VALID"
    ],
    "ALTER TABLE users ADD CONSTRAINT uq UNIQUE (a, b)": [
        "adds unique constraint uq on users without USING INDEX"
    ],
    "ALTER TABLE users ADD CONSTRAINT uq UNIQUE USING INDEX ix": [],
    "ALTER TABLE users ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES orgs (id)": [
        "adds foreign key fk on users without NOT VALID"
    ],
    "ALTER TABLE users ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES orgs (id) NOT VALID": [],
    "ALTER TABLE users ADD CHECK (a > 0)": [
        "adds check constraint <unnamed> on users without NOT VALID"
    ],
    "ALTER TABLE users VALIDATE CONSTRAINT fk": [],
    "CREATE UNIQUE INDEX ix ON users (a)": ["builds index ix on users without CONCURRENTLY"],
    "CREATE INDEX ON users (a)": ["builds index <unnamed> on users without CONCURRENTLY"],
    "CREATE INDEX IF NOT EXISTS ix ON ONLY users (a) WHERE a > 0": [
        "builds index ix on users without CONCURRENTLY"
    ],
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON users (a)": [],
    "TRUNCATE users, orgs": ["empties table users", "empties table orgs"],
    "TRUNCATE TABLE ONLY users": ["empties table users"],
    "DELETE FROM users": ["deletes every row of users"],
    "DELETE FROM users WHERE a = 1": [],
    "UPDATE users SET a = 1": ["changes every row of users"],
    "UPDATE users AS u SET a = (SELECT b FROM orgs WHERE id = u.org)": [
        "changes every row of users"
    ],
    "UPDATE users SET a = 'where'": ["changes every row of users"],
    "UPDATE users SET a = 1 WHERE b = 2": [],
    "INSERT INTO users VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1": [],
    "WITH gone AS (DELETE FROM users RETURNING *) SELECT 1": ["deletes every row of users"],
    "SELECT 'DROP TABLE users' -- DROP TABLE a\n/* DROP TABLE b */": [],
    "COMMENT ON TABLE a IS 'it''s; DROP TABLE users'": [],
    "GRANT EXECUTE ON FUNCTION f TO x": [],
    "CREATE TRIGGER t BEFORE TRUNCATE ON users EXECUTE FUNCTION f()": [],
    "CREATE FUNCTION f() RETURNS void AS $$ DROP TABLE users; $$ LANGUAGE sql": [],
    "DO $$ BEGIN IF true THEN DROP TABLE users; END IF; END $$": ["drops table users"],
    "DO 'BEGIN DROP TABLE users; END'": ["drops table users"],
    "DO LANGUAGE plpgsql $x$ BEGIN EXECUTE 'drop table ' || t; END $x$": [
        "runs SQL that is made at run time"
    ],
    "SELECT 1; DROP TABLE a; DELETE FROM b": ["drops table a", "deletes every row of b"],
    "/* DROP TABLE a": [],
}
WAYS = {
    "op.execute('DROP TABLE a')": ["drops table a"],
    "op.execute(sqltext='DROP TABLE a')": ["drops table a"],
    "op.execute(sa.text('DROP TABLE a'))": ["drops table a"],
    "op.execute(sa.text('DELETE FROM a WHERE b = :b').bindparams(b=1))": [],
    "op.get_bind().execute(sa.text('DROP TABLE a'), {})": ["drops table a"],
    "bind = op.get_bind()\nbind.exec_driver_sql('DROP TABLE a')": ["drops table a"],
    "bind.execute(sa.text('SELECT 1')).scalar()": [],
    "sql = 'DROP TABLE a'\nop.execute(sql)": ["drops table a"],
    "name = 'a'\nop.execute(f'DROP TABLE {name}')": ["drops table a"],
    "for name in names:\n    op.execute(f'DROP TABLE {name}')": [
        "runs SQL that is made at run time"
    ],
    "sql = 'SELECT 1'\nsql += more\nop.execute(sql)": ["runs SQL that is made at run time"],
    "op.execute('DROP TABLE %s' % name)": ["runs SQL that is made at run time"],
    "op.execute(users.update().values(a=1))": ["runs SQL that is made at run time"],
    "with op.get_context().autocommit_block():\n    op.execute('DROP TABLE a')": ["drops table a"],
    "if context.x:\n    pass\nelse:\n    op.execute('DROP TABLE a')": ["drops table a"],
}
MADE = "op.create_table('new')\n"
INDEX = "builds index ix on new without CONCURRENTLY"
OWN = {
    MADE + "op.create_index('ix', 'new', ['a'])\nop.drop_index('ix')": [],
    MADE + "op.add_column('new', sa.Column('a', nullable=False))": [],
    MADE + "op.execute('TRUNCATE new; ALTER TABLE new ALTER a SET NOT NULL')": [],
    MADE + "op.drop_table('new')": [],
    MADE + "op.drop_table('new')\nop.drop_table('new')": ["drops table new"],
    MADE + "op.rename_table('new', 'newer')\nop.drop_column('newer', 'a')": [],
    MADE + "op.rename_table('new', 'newer')\nop.drop_table('new')": ["drops table new"],
    "op.rename_table('old', 'new')\nop.drop_table('new')": [
        "renames table old to new",
        "drops table new",
    ],
    "op.execute('CREATE TABLE new (a int); CREATE INDEX ix ON new (a)')": [],
    "op.execute('CREATE UNLOGGED TABLE public.new (a int)')\nop.drop_table('new')": [],
    "op.execute('CREATE TABLE IF NOT EXISTS new (a int); CREATE INDEX ix ON new (a)')": [INDEX],
    "op.create_table('new', if_not_exists=True)\nop.create_index('ix', 'new', [])": [INDEX],
    "if x:\n    op.create_table('new')\n    op.create_index('ix', 'new', [])": [],
    "if x:\n    op.create_table('new')\nop.create_index('ix', 'new', [])": [INDEX],
    "if x:\n    op.create_table('new')\nelse:\n    op.create_index('ix', 'new', [])": [INDEX],
    "op.add_column('users', sa.Column('a'))\nop.drop_column('users', 'a')": [],
    "op.add_column('users', sa.Column('a'))\nop.alter_column('users', 'a', nullable=False)": [
        "sets column users.a to NOT NULL"
    ],
    "op.create_table(name)\nop.drop_table(name)": ["drops table <name>"],
    "op.add_column('users', sa.Column(a))\nop.drop_column('users', a)": ["drops column users.<a>"],
}


@pytest.mark.parametrize(("text", "expected"), (OPERATIONS | BATCHES | WAYS | OWN).items())
def test_what_an_upgrade_does(text: str, expected: list[str]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(("sql", "expected"), SQL.items())
def test_what_sql_does(sql: str, expected: list[str]) -> None:
    assert executed(sql) == expected


def test_functions_of_the_file_count_when_they_are_called_and_none_hangs_us() -> None:
    more = """
        TABLE = "users"
        def first():
            second()
        def second():
            op.drop_column(TABLE, "a")
            first(); second(); upgrade()
        def never():
            op.drop_table("orgs")
        """
    assert said("first()\nfirst()", more) == ["drops column users.a"]
    doubling = "\n".join(f"def f{n}(): f{n + 1}(); f{n + 1}()" for n in range(60))
    assert said("f0()", doubling + "\ndef f60(): op.drop_table('a')") == ["drops table a"]


def test_names_and_texts_that_grow_do_not_hang_us() -> None:
    more = "a0 = ''\nb0 = 'x'\nc = d\nd = c\ne = e\n"
    more += "".join(f"a{n + 1} = a{n} + a{n}\nb{n + 1} = f'{{b{n}}}{{b{n}}}'\n" for n in range(100))
    run_time = "runs SQL that is made at run time"
    text = "op.execute(a100)\nop.execute(b100)\nop.execute(c)\nop.execute(e)"
    assert said(text, more) == [run_time] * 3
    nested = "op.execute(" + "+".join(["'x'"] * 5000) + ")"
    assert "cannot be read as Python" in said(nested)[0]
    assert list(in_sql("/*" * 50_000 + "(" * 50_000 + "'" * 50_001 + "$$" * 50_000)) == []


FIRST = migration("op.create_table('users')")
SECOND = migration("op.create_index('ix', 'users', [])", "0002", "0001")


def test_tables_of_the_same_set_hurt_nobody_and_those_that_were_there_do() -> None:
    files = {"a.py": SECOND, "b.py": FIRST}
    assert look(files, []) == ()
    assert look(files, ["0001"]) == ("a.py: builds index ix on users without CONCURRENTLY",)
    assert look(files, ["0002"]) == ()


def test_what_is_pending_comes_with_what_it_follows() -> None:
    merge = "op.drop_table('a')"
    files = {
        "1.py": migration("", "a"),
        "2.py": "revision: str = 'b'\ndown_revision: Union[str, None] = 'a'",
        "3.py": migration("", "c", "a"),
        "4.py": migration(merge, "d", ("b", "c")),
        "5.py": "revision: str = 'e'\ndown_revision: str | None = None\ndepends_on = ['left']",
        "6.py": migration("", "f", None, "branch_labels = ('left',)"),
        "__init__.py": "",
        "README": "",
    }
    assert [item.revision for item in pending(files, ["b"])] == ["c", "f", "d", "e"]
    assert [item.revision for item in pending(files, ["d", "e"])] == []
    last = pending(files, ["b", "c", "f"])[0]
    assert (last.file, last.down, last.findings) == ("4.py", ("b", "c"), ("4.py: drops table a",))


def test_what_cannot_be_read_is_named_and_the_rest_is_read() -> None:
    files = {
        "1.py": migration("op.drop_table('a')", "a"),
        "2.py": "def upgrade(:",
        "3.py": "\0",
        "4.py": "revision = make()",
        "5.py": "revision = 'e'\ndown_revision = before()",
        "6.py": migration("", "f", "gone"),
        "7.py": migration("op.drop_table('b')", "g", "h"),
        "8.py": migration("", "h", "g"),
        "9.py": "revision = 'i'\ndown_revision = 'i'",
    }
    found = look(files, [])
    assert found[0].startswith("2.py: cannot be read as Python: ")
    assert found[1].startswith("3.py: cannot be read as Python: ")
    assert found[2:] == (
        "4.py: has no revision that can be read",
        "1.py: drops table a",
        "5.py: says only at run time what it follows",
        "6.py: follows gone, which no file has",
        "7.py: follows itself in a circle, or what does",
        "7.py: drops table b",
        "8.py: follows itself in a circle, or what does",
        "9.py: follows itself in a circle, or what does",
    )


def test_strange_escapes_warn_nobody() -> None:
    assert said("op.execute('DROP TABLE \\d')") == []


def test_the_applications_own_migrations_hurt_nobody_on_an_empty_database() -> None:
    folder = ROOT / "migrations/versions"
    files = {path.name: path.read_text() for path in folder.glob("*.py")}
    assert len(pending(files, [])) == len(files) > 0
    assert look(files, []) == ()


PIECES = st.sampled_from([*SQL, *OPERATIONS, *WAYS, *OWN, *"();,'\"$-/*\n ", "$$", "/*", "do "])


@given(st.text() | st.lists(PIECES).map("".join))
@example("revision = 'a'\ndown_revision = 'a'")
@example("\ud800")
@example("(" * 3000)
def test_no_text_is_too_strange(text: str) -> None:
    look({"a.py": text, "b.py": migration(text.replace("\n", "\n    "))}, ["a"])
    assert all(change.as_text().isprintable() for change in in_sql(text))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[str]]:
    """Histories with branches and merges, in files of any order, and where a database may be."""
    names = draw(st.permutations([f"r{number}" for number in range(draw(st.integers(1, 9)))]))
    graph: Graph = {}
    for name in names:
        graph[name] = tuple(
            draw(st.sets(st.sampled_from(list(graph)), max_size=3)) if graph else ()
        )
    return graph, draw(st.lists(st.sampled_from(names), max_size=3))


def ancestors(graph: Graph, name: str) -> set[str]:
    return {name}.union(*(ancestors(graph, parent) for parent in graph[name]))


@given(graphs())
def test_pending_is_what_no_head_stands_on_each_after_what_it_follows(
    drawn: tuple[Graph, list[str]],
) -> None:
    graph, heads = drawn
    files = {f"{name}.py": migration("", name, down or None) for name, down in graph.items()}
    order = [item.revision for item in pending(files, heads)]
    applied = set().union(*(ancestors(graph, head) for head in heads))
    assert sorted(order) == sorted(set(graph) - applied)
    for place, name in enumerate(order):
        assert set(graph[name]) <= applied.union(order[:place])


@given(graphs())
def test_pending_is_what_alembic_would_run(drawn: tuple[Graph, list[str]]) -> None:
    graph, _ = drawn
    known = RevisionMap(lambda: [Revision(name, down or None) for name, down in graph.items()])
    files = {f"{name}.py": migration("", name, down or None) for name, down in graph.items()}
    for name in graph:
        steps = known.iterate_revisions("heads", name, inclusive=False, implicit_base=True)
        run = {step.revision for step in steps if step is not None}
        assert {item.revision for item in pending(files, [name])} == run
