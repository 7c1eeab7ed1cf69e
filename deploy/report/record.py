"""The record of a run: what `history --json` lists, and every report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from deploy.layout import STAMP
from deploy.outcome import Exit, Failure
from deploy.run import Run

SUCCESS = "✅ DEPLOYMENT SUCCESSFUL ✅"
FAILED = "❌ DEPLOYMENT FAILED ❌"
WARNING = "⚠️ WARNING ⚠️"
CRITICAL = "🚨 CRITICAL 🚨"
KILLED = 137  # what a shell says of a process that was


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
        "rehearsal": run.facts.get("rehearsal"),
        "approval": run.facts.get("approval"),
        "sbom": run.facts.get("sbom"),
        "migrations": run.facts.get("migrations"),
        "smoke": _smoke(run.facts),
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


def _smoke(facts: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return what was found at the front door, and what was looked for only before that."""
    beside, front = facts.get("smoke"), facts.get("smoke_front")
    if not front or not beside:
        return front or beside
    names = {item["name"] for item in front}
    return [*front, *(item for item in beside if item["name"] not in names)]


def killed(run: Run, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run that was killed, from its journal and, if it had one, its plan."""
    lines, plan = item["lines"], item["plan"] or {}
    release = plan.get("release") or {}
    began = {line["step"]: line["at"] for line in lines if line["state"] == "begin"}
    ended = {line["step"]: line for line in lines if line["state"] != "begin"}
    steps = [_from_journal(name, at, ended.get(name)) for name, at in began.items()]
    first, last = lines[0]["at"], lines[-1]["at"]
    seconds = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    caller = plan.get("caller") or {}
    started = datetime.strptime(item["run"], STAMP).replace(tzinfo=UTC)
    return {
        "id": item["run"],
        "kind": plan.get("kind") or lines[0].get("kind", "unknown"),
        "project": run.settings.deploy.project,
        "host": run.target.name,
        "who": caller.get("who", ""),
        "machine": caller.get("machine", ""),
        "trigger": caller.get("trigger", ""),
        "ref": release.get("ref") or plan.get("ref") or "",
        "sha": release.get("sha", ""),
        "release": release.get("id", ""),
        "image": release.get("image", ""),
        "images": release.get("images") or {},
        "previous": (plan.get("previous") or {}).get("id", ""),
        "started": started.isoformat(),
        "ended": last,
        "seconds": round(seconds.total_seconds(), 3),
        "steps": steps,
        **dict.fromkeys(("tests", "backup", "restore", "rehearsal", "approval", "migrations")),
        **dict.fromkeys(("smoke", "availability", "sbom")),
        "warnings": [],
        "log": run.layout.log(started),
        "outcome": "killed",
        "code": KILLED,
        "error": {
            "error": "The run was killed, and the next one settled what it left",
            "code": KILLED,
            "where": f"step {lines[-1]['step']}",
            "next": "",
        },
        "notification": None,
    }


def _from_journal(name: str, at: str, ended: Mapping[str, Any] | None) -> dict[str, Any]:
    if ended is None:
        return {"name": name, "state": "failed", "seconds": 0.0, "note": "killed"}
    seconds = datetime.fromisoformat(ended["at"]) - datetime.fromisoformat(at)
    note = ended.get("note", "")
    return {"name": name, "state": ended["state"], "seconds": seconds.total_seconds(), "note": note}


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
