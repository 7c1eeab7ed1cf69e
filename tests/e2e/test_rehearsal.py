"""Migrations that are tried on a copy first: good ones, one that leaves no way back, a bad one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox import contents
from tests.e2e.conftest import Developer, Ended, change_settings

QUERY = (
    "docker exec -i server_agent_vnext_postgres sh -c 'psql -qtA -U $POSTGRES_USER -d $POSTGRES_DB'"
)
MIGRATION = '''"""Test."""
from alembic import op

revision = "{number}"
down_revision = "{before}"


def upgrade() -> None:
    op.execute("{sql}")
'''
LEFT = """
docker ps --all --format '{{.Names}}'; docker network ls --format '{{.Name}}'
docker volume ls --format '{{.Name}}'; ls /opt/server-agent-vnext/releases/*
"""


def deploy(ann: Developer, number: int, sql: str) -> Ended:
    """Commit a migration that follows the newest one, and deploy it."""
    before = max(path.name[:4] for path in (ann.clone / "migrations/versions").glob("[0-9]*.py"))
    text = MIGRATION.format(number=number, before=before, sql=sql)
    ann.commit(f"migrations/versions/{number}_test.py", text)
    return ann.inv("deploy")


def newest(ann: Developer) -> dict[str, Any]:
    """Return the record of the newest run."""
    found: dict[str, Any] = ann.document("history", "--limit", "1")[0]
    return found


def asked(ann: Developer, sql: str) -> str:
    return ann.on_host(f'echo "{sql}" | {QUERY}')


@pytest.fixture(scope="module")
def ann(developer: Developer) -> Developer:
    """A developer with a release whose tests tell when the scheduler cannot write."""
    checks = [
        {"name": name, "path": "/health", "field": f"checks.{name}.status", "one_of": ["ok"]}
        for name in ("database", "telegram", "proactive")
    ]
    change: dict[str, dict[str, Any]] = {"smoke": {"checks": checks}, "tests": {"compose_file": ""}}
    change_settings(developer.clone / "invoke.yaml", change)
    developer.commit("VERSION", "with a scheduler\n")
    ended = developer.inv("deploy")
    assert ended.code == 0, ended.said
    names = sorted(path.name for path in (developer.clone / "migrations/versions").glob("0*.py"))
    assert newest(developer)["rehearsal"] == {
        "state": "skipped",
        "why": "nothing is live yet",
        "pending": [name[:4] for name in names],
        "operations": [],
    }
    return developer


def test_one_that_the_live_release_can_live_with_is_safe(ann: Developer) -> None:
    ended = deploy(ann, 9001, "alter table scheduler_heartbeat add column note text")
    assert ended.code == 0, ended.said
    found = newest(ann)["rehearsal"]
    assert (found["state"], found["why"]) == ("safe", "not judged: telegram")
    assert {"database", "proactive"} <= {item["name"] for item in found["findings"] if item["ok"]}
    assert "Rehearsal: safe to roll back, not judged: telegram (migrated" in ann.messages()[-1]
    assert "rehearsal" not in ann.on_host(LEFT)


def test_one_that_leaves_no_way_back_is_told(ann: Developer) -> None:
    proactive = (ann.clone / "server_agent/proactive.py").read_text()
    ann.commit(
        "server_agent/proactive.py",
        proactive.replace("leader) values", "chief) values").replace(
            "leader = excluded.leader", "chief = excluded.chief"
        ),
    )
    ended = deploy(ann, 9002, "alter table scheduler_heartbeat rename column leader to chief")
    assert ended.code == 0, ended.said
    record = newest(ann)
    assert record["rehearsal"]["state"] == "unsafe"
    assert record["rehearsal"]["operations"] == [
        "9002_test.py: renames column scheduler_heartbeat.leader to chief"
    ]
    assert "proactive" in record["rehearsal"]["why"]
    assert ann.live() == record["release"]
    message = ann.messages()[-1]
    assert message.startswith("⚠️ WARNING ⚠️")
    assert "Rehearsal: not safe to roll back: proactive:" in message
    assert "rehearsal" not in ann.on_host(LEFT)


def test_one_that_fails_on_what_is_there_touches_nothing(ann: Developer) -> None:
    before = ann.live()
    asked(ann, "insert into telegram_updates (update_id, payload) values (-1, '{}')")
    ended = deploy(ann, 9003, "alter table telegram_updates add check (update_id > 0)")
    assert ended.code == 3, ended.said
    assert "The migrations failed in the rehearsal" in ended.err
    assert "violated by some row" in ended.err
    assert ann.live() == before
    assert asked(ann, "select version_num from alembic_version") == "9002"
    assert "rehearsal" not in ann.on_host(LEFT)
    record = newest(ann)
    assert record["rehearsal"]["state"] == "failed"
    assert "check" in " ".join(record["rehearsal"]["operations"])
    assert record["migrations"] == {"before": ["9002"], "after": ["9002"]}


def test_a_plan_says_what_waits_and_does_nothing(ann: Developer) -> None:
    runs = ann.document("history")
    plan = ann.document("plan")
    assert set(plan) == {"changes", "steps", "rollback_to"}
    assert (plan["changes"], plan["rollback_to"]) == (True, ann.live())
    steps = {item["name"]: (item["will"], item["why"]) for item in plan["steps"]}
    assert list(steps)[:2] == ["preflight", "lock"]
    assert list(steps)[-1] == "drain"
    assert steps["rehearse"][0] == "do"
    assert steps["migrate"][1].startswith("9003; 9003_test.py: adds check constraint")
    assert steps["test"] == ("skip", "no tests are configured")
    contents.seed(ann.box, ann.clone)
    there = json.loads(ann.fab("plan", "--json").out)
    assert [item["name"] for item in there["steps"]] == list(steps)
    assert ann.document("history") == runs


def test_after_a_failure_a_person_is_told_how_the_data_is_left(ann: Developer) -> None:
    asked(ann, "delete from telegram_updates")
    health = (ann.clone / "server_agent/app.py").read_text()
    assert '"/health"' in health
    ann.commit("server_agent/app.py", health.replace('"/health"', '"/other"'))
    ended = deploy(ann, 9004, "alter table scheduler_heartbeat rename column chief to boss")
    assert ended.code == 3, ended.said
    message = ann.messages()[-1]
    assert "Warning: the database stays migrated to 9004, on which" in message
    assert "failed in the rehearsal; correct and deploy again, or: inv restore" in message
