"""What to do about what PostgreSQL and its programs say."""

from __future__ import annotations

import pytest

from deploy.postgres import dump


@pytest.mark.parametrize(
    ("why", "step"),
    [
        ("gzip: stdout: No space left on device", "df -h"),
        ("12 kB are free, 32768 kB may be needed", "df -h"),
        ("pg_dump: error: ERROR:  canceling statement due to lock timeout", "pg_locks"),
        ("ERROR:  canceling statement due to statement timeout", "pg_locks"),
        ("Error response from daemon: No such container: shop", "docker ps --all; docker logs"),
        ("Error response from daemon: container 0a1b is not running", "docker ps --all"),
        ("pg_dump: error: server closed the connection unexpectedly", "docker logs"),
        ("FATAL:  terminating connection due to administrator command", "docker logs"),
        ('connection to server on socket "/run/x" failed: No such file', "docker logs"),
        ('psql:<stdin>:9: ERROR:  role "shop-owner" does not exist', 'create role "shop-owner"; '),
        (
            'connection to server at "db" failed: FATAL:  password authentication failed for "a"',
            "correct DATABASE_URL",
        ),
        ("ERROR:  permission denied to create database", "alter role NAME createdb"),
        ("pg_dump: error: aborting because of server version mismatch", "database.client_image"),
    ],
)
def test_what_to_do_follows_from_the_cause(why: str, step: str) -> None:
    assert step in dump.cure(why)


def test_of_another_cause_nothing_is_said() -> None:
    assert dump.cure("the dump has no table, the backup before had 3") == ""
