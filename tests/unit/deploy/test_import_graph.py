"""The arrows between the rooms run downward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# From the top: a room may know the rooms on its own floor and below.
FLOORS = (
    ("cli", "usage", "tasks", "fabfile"),
    ("doctor", "setup"),
    ("verbs", "status", "backups", "planning", "exposure"),
    ("session", "schedule", "triggers"),
    ("unattended",),
    ("runbook", "conduct"),
    ("recover",),
    ("detached",),
    ("steps", "verdict"),
    ("pipeline", "report"),
    ("journal",),
    ("run",),
    ("smoke", "traffic", "health"),
    ("origin",),
    ("served",),
    ("git", "lock", "releases", "probe"),
    ("postgres",),
    ("checks",),
    ("layout", "library"),
    ("docker", "telegram"),
    ("host",),
    ("log", "settings"),
    ("called",),
    ("command", "redact", "dotenv", "refs", "terminal", "audit", "leaks"),
    ("outcome", "public"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
READS_MIGRATIONS = ROOT / "deploy/postgres/operations.py"
FILES = sorted((ROOT / "deploy").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "deploy").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "deploy":
                found |= {f"deploy.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_knows_only_what_is_below_it(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "deploy" and len(parts) > 1:
            assert FLOOR[parts[1]] >= FLOOR[room], f"{room} knows {parts[1]}"
        assert parts[0] not in ("server_agent", "sandbox", "tests", "tasks", "fabfile")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_room_knows_fabric_and_none_knows_the_agent(path: Path) -> None:
    known = {name.split(".")[0] for name in imports(path)}
    if path.name != "ssh.py":
        assert not known & {"fabric", "paramiko"}
    text = path.read_text().lower()
    foreign = {"server_agent", "server-agent", "alembic"}
    if path == READS_MIGRATIONS:  # as text, and it has to say whose they are
        foreign.remove("alembic")
    assert "alembic" not in known
    assert not [word for word in foreign if word in text]


def test_bodies_of_tasks_are_short() -> None:
    for name in ("tasks.py", "fabfile/__init__.py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.body[0].lineno + 1
                assert lines <= 10, f"{name}: {node.name}"


@pytest.mark.parametrize(
    "module",
    [
        "deploy.detached.work",
        "deploy.schedule.work",
        "deploy.triggers.pushed",
        "deploy.triggers.work",
    ],
)
def test_what_runs_on_a_host_needs_the_standard_library_alone(module: str) -> None:
    text = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    isolated = (sys.executable, "-I", "-S", "-c", text)
    done = subprocess.run(isolated, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
