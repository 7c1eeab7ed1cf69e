"""The agent's database: wrong addresses, backups and restores, from both command lines."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.conftest import HOME, Developer

QUERY = (
    "docker exec -i server_agent_vnext_postgres sh -c 'psql -qtA -U $POSTGRES_USER -d $POSTGRES_DB'"
)

# Somebody who connects every 20 ms, and notes whether that went well, and when.
KNOCK = """
docker exec server_agent_vnext_postgres touch /tmp/knocking
docker exec --detach server_agent_vnext_postgres sh -c '
  while [ -e /tmp/knocking ]; do
    psql -X -qtA -U $POSTGRES_USER -d $POSTGRES_DB -c "select 1" >/dev/null 2>&1
    echo "$? $(date +%s.%N)"
    sleep 0.02
  done >/tmp/knocks'
"""
KNOCKS = "docker exec server_agent_vnext_postgres sh -c 'rm /tmp/knocking; cat /tmp/knocks'"


@pytest.fixture(scope="module")
def ann(developer: Developer) -> Developer:
    first = developer.inv("deploy", DATABASE_URL="postgresql://ann:first-Pass-99@postgres/shopdb")
    assert first.code == 0, first.said
    return developer


def sql(ann: Developer, text: str) -> str:
    return ann.on_host(f'echo "{text}" | {QUERY}')


def longest_refusal(knocks: str) -> float:
    """Return the longest time between two good answers with none but refusals between them."""
    answers = [line.split() for line in knocks.splitlines()]
    good = [number for number, (code, _at) in enumerate(answers) if code == "0"]
    pairs = [(one, two) for one, two in pairwise(good) if two > one + 1]
    return max((float(answers[two][1]) - float(answers[one][1]) for one, two in pairs), default=0.0)


def test_the_first_address_makes_the_database_fit_it(ann: Developer) -> None:
    assert sql(ann, "select current_user || ' ' || current_database()") == "ann shopdb"
    kept = ann.on_host(f"cat {HOME}/.env")
    assert "DATABASE_URL='postgresql://ann:first-Pass-99@postgres/shopdb'" in kept


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://ann:wrong-Pass@postgres:5432/shopdb", "password authentication failed"),
        ("postgresql://ann:first-Pass-99@postgres:5432/nowhere", "does not exist"),
        ("postgresql://ann:x@no-such-host.invalid/d", "could not translate host name"),
    ],
)
def test_a_wrong_address_is_refused(ann: Developer, url: str, says: str) -> None:
    before, env = ann.live(), ann.on_host(f"cat {HOME}/.env")
    ended = ann.inv("deploy", DATABASE_URL=url)
    assert ended.code == 7, ended.said
    assert "DATABASE_URL does not open a database" in ended.err
    assert says in ended.err
    assert "wrong-Pass" not in ended.said
    assert ann.live() == before
    assert ann.on_host(f"cat {HOME}/.env") == env


def test_a_backup_is_described_and_comes_home(ann: Developer) -> None:
    found = ann.document("backup", "--download")
    assert set(found) == {"name", "path", "bytes", "sha256", "rows", "downloaded"}
    copy = Path(found["downloaded"]).read_bytes()
    assert hashlib.sha256(copy).hexdigest() == found["sha256"]
    assert len(copy) == found["bytes"]
    assert Path(found["downloaded"]).parent == ann.clone / "backups"
    assert found["path"] == f"{HOME}/backups/{found['name']}"
    assert found["rows"] >= 1
    assert ann.document("status")["backup"]["name"] == found["name"]
    assert ann.inv("backup", "--keep", "3").code == 0
    assert ann.inv("backup", "--keep=-1").code == 7
    assert json.loads(ann.fab("backup", "--json").out)["downloaded"] is None


def test_a_restore_brings_the_rows_back(ann: Developer) -> None:
    sql(ann, "insert into telegram_updates (update_id, payload, state) values (1, '{}', 'ignored')")
    name = ann.document("backup")["name"]
    sql(ann, "delete from telegram_updates")
    refused = ann.inv("restore", name)
    assert refused.code == 7
    assert "nobody said yes" in refused.err
    assert sql(ann, "select count(*) from telegram_updates") == "0"
    ann.on_host(KNOCK)
    done = ann.inv("restore", name, "--yes")
    longest = longest_refusal(ann.on_host(KNOCKS))
    assert done.code == 0, done.said
    assert 0 < longest < 2
    assert sql(ann, "select count(*) from telegram_updates") == "1"
    assert ann.live()
    assert "database was restored" in ann.messages()[-1]
    assert ann.messages()[-1].startswith("⚠️ WARNING ⚠️\n")


def test_backups_are_listed_verified_and_restored_beside(ann: Developer) -> None:
    taken = ann.document("backup")
    (newest, *_) = listed = ann.document("backup.list")
    assert (newest["name"], newest["state"]) == (taken["name"], "good")
    assert newest["rows"] == taken["rows"]
    assert all(item["release"] for item in listed[:-1])
    before = len(ann.messages())
    found = ann.document("backup.verify", taken["name"], "--restore")
    assert [item["state"] for item in found] == ["good"]
    assert ann.fab("backup.verify", "--all").code == 0
    assert len(ann.messages()) == before
    beside = ann.inv("restore", taken["name"], "--as", "copy_then")
    assert beside.code == 0, beside.said
    assert sql(ann, "select count(*) from pg_database where datname = 'copy_then'") == "1"
    assert "restored as copy_then" in ann.messages()[-1]
    assert ann.inv("restore", taken["name"], "--as", "copy_then").code == 7
    sql(ann, "drop database copy_then")
    assert taken["name"] in ann.fab("backup.list").out


def test_a_damaged_backup_restores_nothing(ann: Developer) -> None:
    found = ann.document("backup")
    ann.on_host(f"truncate -s -20 {found['path']}")
    ended = ann.inv("restore", found["name"], "--yes")
    assert ended.code == 9, ended.said
    assert "damaged" in ended.err
    assert sql(ann, "select count(*) from telegram_updates") == "1"
    assert ann.inv("restore", "../../etc/passwd", "--yes").code == 7
    assert ann.inv("restore", "missing_2020.sql.gz", "--yes").code == 9


def test_a_backup_that_fails_is_code_9(ann: Developer) -> None:
    ann.on_host("docker stop server_agent_vnext_postgres")
    try:
        ended = ann.inv("backup")
    finally:
        ann.on_host("docker start server_agent_vnext_postgres")
    assert ended.code == 9, ended.said
    assert ann.messages()[-1].startswith("⚠️ WARNING ⚠️\n")
