"""What the agent makes of what it sees on the server, and its other pure parts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_agent import model, server, web
from server_agent.budget import Period
from server_agent.model import Completion
from server_agent.server import Container, Fact
from server_agent.settings import Settings
from tests.unit.test_agent import JSON

NAME = "server_agent_vnext_web"
NOW = datetime(2026, 11, 25, tzinfo=UTC)
RELEASE = {"deploy.release": "r1", "deploy.live-name": NAME}


def container(state: str, status: str, name: str = NAME, **labels: str) -> dict[str, Any]:
    return {"Names": [f"/{name}"], "State": state, "Status": status, "Labels": labels}


@pytest.mark.parametrize(
    ("item", "bad"),
    [
        (container("running", "Up 2 hours"), False),
        (container("running", "Up 2 hours (healthy)"), False),
        (container("running", "Up 2 hours (health: starting)"), False),
        (container("running", "Up 2 hours (unhealthy)"), True),
        (container("restarting", "Restarting (1) 3 seconds ago"), True),
        (container("dead", "Dead"), True),
        (container("exited", "Exited (0) 3 days ago"), False),
        (container("exited", "Exited (137) 3 days ago"), True),
        (container("created", "Created"), False),
        (container("paused", "Up 2 hours (Paused)"), False),
        (container("exited", "Exited (1) 3 days ago", "another"), False),
        (container("exited", "Exited (1) 3 days ago", f"{NAME}/../x"), False),
        (container("exited", "Exited (1) 3 days ago", **RELEASE), True),
        (container("exited", "Exited (1) 3 days ago", f"{NAME}_r1", **RELEASE), False),
        (container("exited", "Exited (1) 3 d", **{"com.docker.compose.oneoff": "True"}), False),
    ],
)
def test_which_containers_have_failed(item: dict[str, Any], *, bad: bool) -> None:
    found = web.read(list[Container], json.dumps([item]))
    assert found
    assert list(server.failed(found)) == ([NAME] if bad else [])


@given(JSON)
def test_garbage_of_an_engine_is_no_container(value: Any) -> None:
    for item in ({}, {"": value}, [value], [{"Names": value, "Labels": value, "Status": value}]):
        assert web.read(list[Container], json.dumps(item)) is None


@given(JSON)
def test_garbage_about_a_backup_is_no_backup(value: Any) -> None:
    unknown = Fact("backup.json is missing or unreadable", "No backup is known")
    for item in (value, {"at": value}, {"name": value, "at": "9999-12-31T23:59:59-23:00"}):
        assert server.backup_of(json.dumps(item), NOW) == unknown
    assert server.backup_of("[" * 100_000, NOW) == server.backup_of("", NOW) == unknown


def test_memory_is_read(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       4 kB\nMemFree:   1 kB\nHugePages_Total:       0\n")
    assert server.memory_of(file) == {"MemTotal": 4096, "MemFree": 1024}
    found = server.facts(Settings("", data_dir=str(tmp_path)))["memory"]
    assert found.text.endswith(" GiB free")


@pytest.mark.parametrize(("free", "wrong"), [(50, ""), (49, "it is short")])
def test_what_is_short(free: int, *, wrong: str) -> None:
    found = server.share_of(free << 30, 1000 << 30, 5, "it is short", "do")
    assert found == Fact(f"{free}.0 of 1000.0 GiB free", wrong, "do" if wrong else "")


@pytest.mark.parametrize(("hours", "old"), [(37, True), (35, False)])
def test_what_is_found(tmp_path: Path, hours: int, *, old: bool) -> None:
    at = datetime.now(UTC) - timedelta(hours=hours)
    backup = {"name": "b", "at": at.isoformat(), "state": "good"}
    (tmp_path / "backup.json").write_text(json.dumps(backup))
    some = Settings("", facts_dir=str(tmp_path), data_dir=str(tmp_path), disk_free_percent=101)
    found = server.findings(some)
    assert (found["disk"].wrong, found["disk"].action) == ("The disk is nearly full", "")  # no door
    assert ("backup" in found) is old
    assert server.facts(some)["backup"].text == f"b, {at:%Y-%m-%d %H:%M} UTC, good"


@pytest.mark.parametrize(
    ("limit", "spent", "reserved", "status"),
    [
        (100, 79, 0, "ok"),
        (100, 70, 9, "ok"),
        (100, 80, 0, "warned"),
        (100, 0, 80, "warned"),
        (100, 100, 0, "spent"),
        (100, 60, 40, "spent"),
        (100, 101, 0, "spent"),
        (0, 0, 0, "spent"),
    ],
)
def test_how_a_budget_stands(limit: int, spent: int, reserved: int, status: str) -> None:
    assert Period("2026-11", limit, spent, reserved).status == status


@given(JSON)
def test_garbage_of_a_model_is_no_answer(value: Any) -> None:
    good = [{"message": {"content": "hi"}}]
    for item in (
        value,
        {"choices": value},
        {"choices": [value]},
        {"choices": [{"message": {"content": [value]}}]},
        {"choices": good, "usage": [value]},
        {"choices": good, "usage": {"prompt_tokens": 1, "completion_tokens": [value]}},
    ):
        assert web.read(Completion, json.dumps(item)) is None


@given(st.text())
def test_a_prompt_has_no_more_tokens_than_bytes(text: str) -> None:
    body = model.prompt("small", text, {"disk": text})
    assert len(body) > len(text[: model.ASKED].encode())
    assert json.loads(body)["messages"][1]["content"] == text[: model.ASKED]
