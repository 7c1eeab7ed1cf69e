"""What people read about a run."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.outcome import Exit
from deploy.report import record as records
from deploy.report import text


def record(code: int = 0, kind: str = "deploy", **more: Any) -> dict[str, Any]:
    error = {"error": "It broke: line one\nline two", "code": code, "where": "vps", "next": "do it"}
    return {
        "id": "2026-01-01_00-00-00",
        "kind": kind,
        "project": "shop",
        "host": "vps",
        "who": "ann",
        "trigger": "inv",
        "ref": "main",
        "sha": "abcdef1234567890",
        "release": "r2",
        "previous": "r1",
        "seconds": 12.3,
        "steps": [
            {"name": "test", "state": "ok", "seconds": 1.0, "note": ""},
            {"name": "build", "state": "ok", "seconds": 1.0, "note": "x"},
        ],
        "tests": {"passed": 3.0, "failed": 0.0, "errors": 0.0, "coverage": 91.5},
        "backup": {"state": "good", "name": "b.sql.gz"},
        "migrations": {"before": [], "after": ["1"]},
        "smoke": [{"name": "health", "ok": True, "detail": "200"}],
        "availability": {"sent": 99, "failed": 1, "slowest": 0.5, "longest_gap": 0.25},
        "warnings": [],
        "log": "/l/x.log",
        "outcome": records.outcome(Exit(code)),
        "code": code,
        "error": error if code else None,
        **more,
    }


FAILED = [{"name": "health", "state": "failed", "seconds": 1.0, "note": ""}]
WARNED = [{"name": "backup", "state": "warned", "seconds": 1.0, "note": ""}]


@pytest.mark.parametrize(
    ("found", "first"),
    [
        (record(), "✅ DEPLOYMENT SUCCESSFUL ✅"),
        (record(steps=WARNED), "⚠️ WARNING ⚠️"),
        (record(kind="rollback"), "⚠️ WARNING ⚠️"),
        (record(kind="restore"), "⚠️ WARNING ⚠️"),
        (record(9, kind="backup"), "⚠️ WARNING ⚠️"),
        (record(5), "🚨 CRITICAL 🚨"),
        (record(5, kind="rollback"), "🚨 CRITICAL 🚨"),
        *((record(code), "❌ DEPLOYMENT FAILED ❌") for code in (1, 2, 3, 4, 6, 7, 8, 130, 143)),
    ],
)
def test_the_first_line_says_how_it_ended(found: dict[str, Any], first: str) -> None:
    assert text.message(found, "Shop").splitlines()[0] == first


def test_a_message_holds_what_the_master_needs() -> None:
    told = text.message(record(3, steps=FAILED, warnings=["w"]), "Shop")
    for part in (
        "Shop on vps: deploy failed. It broke: line one",
        "SHA: abcdef1",
        "Branch: main",
        "Duration: 12 s",
        "Tests: 3 passed, 0 failed, coverage 91.5 %",
        "Build: not run",
        "Smoke: 1 passed",
        "Front door: 99 requests, 1 failed, slowest 0.500 s, longest gap 0.250 s",
        "Warning: w",
        "Failed step: health (exit code 3)",
        "line two",
        "Next: do it",
    ):
        assert part in told


def test_a_message_stays_readable_when_little_is_known() -> None:
    bare = record(
        7, release="", previous="", sha="", ref="", steps=[], tests=None, smoke=None, backup=None
    ) | {"availability": None}
    told = text.message(bare, "Shop")
    assert "SHA: unknown" in told
    assert "Branch: default" in told
    assert "Smoke: not run" in told
    assert "Failed step: none (exit code 7)" in told


def test_a_report_and_a_history_name_every_step_and_run() -> None:
    told = text.report(record(kind="rollback"))
    assert told.startswith("shop on vps: rolled back from r1 to r2.")
    for part in ("test", "build", "b.sql.gz", "empty → 1", "✓ health: 200", "/l/x.log"):
        assert part in told
    assert text.history([]) == "There was no run yet."
    assert "rolled back" in text.history([record(4)])
    bad = record(4, smoke=[{"name": "health", "ok": False, "detail": "500"}])
    assert "Smoke: failed: health" in text.message(bad, "Shop")


def test_a_long_cause_keeps_its_beginning_and_its_end() -> None:
    lines = [f"line {number}" for number in range(200)]
    kept = text.excerpt(lines)
    assert kept[0] == "line 0"
    assert kept[-50:] == lines[-50:]
    assert "…" in kept
    assert text.excerpt(lines[:58]) == lines[:58]
    assert len(text.excerpt(["x" * 999])[0]) == 120
