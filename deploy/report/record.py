"""The record of a run: what `history --json` lists, and every report is made of."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from deploy.outcome import Exit, Failure
from deploy.run import Run

SUCCESS = "✅ DEPLOYMENT SUCCESSFUL ✅"
FAILED = "❌ DEPLOYMENT FAILED ❌"
WARNING = "⚠️ WARNING ⚠️"
CRITICAL = "🚨 CRITICAL 🚨"


def build(run: Run, failure: Failure | None, ended: datetime) -> dict[str, Any]:
    """Return the record of a run that has ended."""
    release = run.release if hasattr(run, "release") else None
    code = Exit.OK if failure is None else failure.code
    record = {
        "id": run.id,
        "kind": run.kind,
        "project": run.settings.deploy.project,
        "host": run.target.name,
        "who": run.caller.who,
        "machine": run.caller.machine,
        "trigger": run.caller.trigger,
        "ref": run.source.ref if hasattr(run, "source") else (release.ref if release else run.ref),
        "sha": run.sha or (release.sha if release else ""),
        "release": release.id if release else "",
        "image": release.image if release else "",
        "images": dict(release.images) if release else {},
        "previous": run.previous.id if run.previous else "",
        "started": run.started.isoformat(),
        "ended": ended.isoformat(),
        "seconds": round((ended - run.started).total_seconds(), 3),
        "steps": [{**asdict(step), "seconds": round(step.seconds, 3)} for step in run.steps],
        "tests": run.facts.get("tests"),
        "backup": run.facts.get("backup"),
        "restore": run.facts.get("restore"),
        "migrations": run.facts.get("migrations"),
        "smoke": run.facts.get("smoke_front") or run.facts.get("smoke"),
        "availability": run.facts.get("availability"),
        "warnings": list(run.warnings),
        "log": run.layout.log(run.started),
        "outcome": outcome(code),
        "code": int(code),
        "error": failure.as_json() if failure else None,
        "notification": None,
    }
    masked: dict[str, Any] = run.log.redactor.mask_all(record)
    return masked


def outcome(code: Exit) -> str:
    """Return one word for how a run ended."""
    words = {
        Exit.OK: "success",
        Exit.TESTS: "tests failed",
        Exit.BUILD: "build failed",
        Exit.ROLLED_BACK: "rolled back",
        Exit.CRITICAL: "rollback failed",
        Exit.BUSY: "refused",
        Exit.INVALID: "refused",
        Exit.UNREACHABLE: "unreachable",
        Exit.INTERRUPTED: "interrupted",
        Exit.TERMINATED: "terminated",
    }
    return words.get(code, "failed")


def headline(record: dict[str, Any]) -> str:
    """Return the first line that the Master reads."""
    if record["code"] == Exit.CRITICAL:
        return CRITICAL
    if record["kind"] not in ("deploy", "rollback"):
        return WARNING
    if record["code"] != Exit.OK:
        return FAILED
    warned = any(step["state"] == "warned" for step in record["steps"])
    return WARNING if warned or record["kind"] == "rollback" else SUCCESS
