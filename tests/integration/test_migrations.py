"""The migrations, up, down and up again."""

from __future__ import annotations

from contextlib import closing

import psycopg2

from tests.support import agent


def tables(database: str) -> set[str]:
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        found.execute("select tablename from pg_tables where schemaname = 'public'")
        return {row[0] for row in found.fetchall()}


def test_up_down_and_up_again(empty_database: str) -> None:
    agent.migrate(empty_database)
    full = tables(empty_database)
    assert {"alembic_version", "telegram_updates", "approvals", "token_periods"} <= full
    agent.migrate(empty_database)
    assert agent.migrate(empty_database, "current").split()[0] == "0003"
    agent.migrate(empty_database, "downgrade", "base")
    assert tables(empty_database) == {"alembic_version"}
    agent.migrate(empty_database)
    assert tables(empty_database) == full


def test_an_address_with_every_odd_character_is_understood(empty_database: str) -> None:
    name = empty_database.rpartition("/")[2]
    with closing(psycopg2.connect(empty_database)) as link, link.cursor() as found:
        link.autocommit = True
        role = f"odd_{name}"
        found.execute(f"create role {role} login superuser password 'a%b@c:d/e?f#g'")
        server = empty_database.rpartition("@")[2]
        try:
            agent.migrate(f"postgresql://{role}:a%25b%40c%3Ad%2Fe%3Ff%23g@{server}")
            assert "telegram_updates" in tables(empty_database)
            found.execute(f"reassign owned by {role} to current_user")
        finally:
            found.execute(f"drop role {role}")
