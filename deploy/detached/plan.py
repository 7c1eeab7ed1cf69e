"""What detached work is told, and what it answers: values that travel as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from deploy import outcome
from deploy.git import Source
from deploy.host import Host
from deploy.log import RunLog
from deploy.outcome import Failure
from deploy.releases import Release
from deploy.run import Caller, Run, StepRecord
from deploy.served import section

if TYPE_CHECKING:
    from deploy.settings import Settings

SLACK = 180  # seconds, beside the settings' own limits, for all else that work may take


def deadline_of(settings: Settings, kind: str) -> float:
    """Return the seconds that detached work may take before it is ended and undone."""
    if kind == "restore":
        return 3 * settings.database.deadline + SLACK
    health, smoke = settings.health, settings.smoke
    checks = (len(smoke.checks) + 1) * (smoke.retry_seconds + health.timeout)
    once = health.startup_wait + smoke.watch_seconds + settings.proxy.drain_timeout
    return once + 2 * checks + SLACK


def plan_of(run: Run) -> dict[str, Any]:
    """Return what the host needs to know to go on with a run; secrets are not among it."""
    settings = run.settings.model_dump(mode="json", exclude={"environment"})
    return {
        "kind": run.kind,
        "host": run.target.name,
        "settings": settings,
        "deadline": deadline_of(run.settings, run.kind),
        "caller": asdict(run.caller),
        "started": run.started.isoformat(),
        "mark": run.mark,
        "ref": run.ref,
        "source": asdict(run.source) if hasattr(run, "source") else None,
        "release": asdict(run.release) if hasattr(run, "release") else None,
        "previous": asdict(run.previous) if run.previous else None,
        "steps": [asdict(step) for step in run.steps[:-1]],
        "warnings": run.warnings,
        "facts": run.facts,
    }


def run_of(plan: dict[str, Any], target: Host, log: RunLog) -> Run:
    """Given a plan, return the run as the host goes on with it."""
    run = Run(
        kind=plan["kind"],
        settings=cast("Settings", section(plan["settings"])),
        folder=Path(),
        target=target,
        builder=target,
        log=log,
        caller=Caller(**plan["caller"]),
        started=datetime.fromisoformat(plan["started"]),
        ref=plan["ref"],
        mark=plan.get("mark", ""),  # a version before had none, and may have been killed
        previous=Release(**plan["previous"]) if plan["previous"] else None,
        steps=[StepRecord(**item) for item in plan["steps"]],
        warnings=list(plan["warnings"]),
        facts=dict(plan["facts"]),
    )
    if plan["source"]:
        run.source = Source(**plan["source"])
    if plan["release"]:
        run.release = Release(**plan["release"])
    return run


def result_of(run: Run, failure: Failure | None) -> dict[str, Any]:
    """Return what detached work answers when it has ended."""
    return {
        "steps": [asdict(step) for step in run.steps],
        "warnings": run.warnings,
        "facts": run.facts,
        "release": asdict(run.release) if hasattr(run, "release") else None,
        "committed": run.committed,
        "failure": failure and {"kind": type(failure).__name__, **texts(failure)},
    }


def texts(failure: Failure) -> dict[str, str]:
    """Return what a failure says, as its constructor takes it."""
    return {
        "what": failure.what,
        "where": failure.where,
        "why": failure.why,
        "next_step": failure.next_step,
    }


def take_in(run: Run, result: dict[str, Any]) -> Failure | None:
    """Put what detached work found into the run that waited for it; return how it failed."""
    run.steps[:] = [StepRecord(**item) for item in result["steps"]]
    run.warnings[:] = result["warnings"]
    run.facts.update(result["facts"])
    if result["release"]:
        run.release = Release(**result["release"])
    told = result["failure"]
    return failure_named(told.pop("kind"))(**told) if told else None


def failure_named(name: str) -> type[Failure]:
    """Return the failure of that name, or one that stands for it."""
    known = {kind.__name__: kind for kind in leaves(Failure)}
    return known.get(name, outcome.DeployFailed)


def leaves(kind: type[Failure]) -> Sequence[type[Failure]]:
    """Return a failure and all that are made from it."""
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]
