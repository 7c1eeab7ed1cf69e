"""What the agent makes of what it sees on the server, and its other pure parts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_agent import model, server
from server_agent.budget import Period
from server_agent.model import ModelFailed
from server_agent.server import Fact
from server_agent.settings import Settings
from server_agent.web import Answer
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
    assert list(server.failed([item])) == ([NAME] if bad else [])


@given(JSON)
def test_garbage_of_an_engine_is_no_container(value: Any) -> None:
    for item in (value, [value], [{"Names": value, "Labels": value, "State": value}]):
        assert server.failed(item) == {}


@given(JSON)
def test_garbage_about_a_backup_is_no_backup(value: Any) -> None:
    for item in (value, {"at": value}, {"name": value, "at": "9999-12-31T23:59:59-23:00"}):
        assert server.backup_of(json.dumps(item), NOW) is None
    assert server.backup_of("[" * 100_000, NOW) is None


def test_memory_is_read() -> None:
    text = "MemTotal:       4194304 kB\nMemFree:   1 kB\nMemAvailable:    1048576 kB\n"
    assert server.memory_of(text) == Fact("1.0 of 4.0 GiB free")
    assert server.memory_of(text.replace("1048576", "1048")) == Fact(
        "0.0 of 4.0 GiB free", "Memory is nearly used up"
    )
    assert server.memory_of("MemTotal: 0 kB\nMemAvailable: 0 kB\n") is None
    assert server.memory_of("MemTotal: 4 kB\n") is None
    assert server.memory_of("") is None


@pytest.mark.parametrize(
    ("at", "old"), [("2026-11-24T01:00:00", True), ("2026-11-24T13:00", False)]
)
def test_what_is_found(tmp_path: Path, at: str, *, old: bool) -> None:
    (tmp_path / "backup.json").write_text(json.dumps({"name": "b", "at": at, "state": "good"}))
    some = Settings("", facts_dir=str(tmp_path), data_dir=str(tmp_path), disk_free_percent=101)
    found = server.findings(some, {NAME: "Dead"}, NOW + timedelta(hours=18 if old else 0))
    assert found[NAME] == Fact("Dead", f"Container {NAME} has failed", server.RESTART)
    assert (found["disk"].wrong, found["disk"].action) == ("The disk is nearly full", "")  # no door
    assert ("backup" in found) is old


@pytest.mark.parametrize(
    ("name", "next_one"),
    [
        ("2026-11-25", "2026-11-26"),
        ("2026-12-31", "2027-01-01"),
        ("2028-02-28", "2028-02-29"),
        ("2026-01", "2026-02-01"),
        ("2026-12", "2027-01-01"),
    ],
)
def test_when_a_budget_is_renewed(name: str, next_one: str) -> None:
    assert Period(name, 1).renewed == next_one


@pytest.mark.parametrize(
    ("limit", "spent", "status"),
    [
        (100, 79, "ok"),
        (100, 80, "warned"),
        (100, 100, "spent"),
        (100, 101, "spent"),
        (0, 0, "spent"),
    ],
)
def test_how_a_budget_stands(limit: int, spent: int, status: str) -> None:
    assert Period("2026-11", limit, spent).status == status


@given(JSON)
def test_garbage_of_a_model_is_a_failure(value: Any) -> None:
    wrapped = {"choices": [{"message": {"content": value}}], "usage": value}
    for item in (
        value,
        {"choices": value},
        {"choices": [value], "usage": {"prompt_tokens": value}},
    ):
        with pytest.raises(ModelFailed):
            model.parse(Answer(200, json.dumps(item).encode()))
    if not isinstance(value, str):
        with pytest.raises(ModelFailed):
            model.parse(Answer(200, json.dumps(wrapped).encode()))


@given(st.text())
def test_a_prompt_has_no_more_tokens_than_bytes(text: str) -> None:
    body = model.prompt("small", text, {"disk": text})
    assert len(body) > len(text[: model.ASKED].encode())
    assert json.loads(body)["messages"][1]["content"] == text[: model.ASKED]
