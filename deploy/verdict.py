"""What a failure means once everything was undone: asked from the host, not remembered."""

from __future__ import annotations

from deploy import health, traffic
from deploy.outcome import DeployFailed, Failure, RollbackFailed, RolledBack, SmokeFailed
from deploy.postgres import access, restore
from deploy.run import Run
from deploy.served import own


def settle(run: Run, failure: Failure) -> Failure:
    """Given what ended a run, return what it means now that all was undone.

    When traffic was touched, the host is asked who serves; memory proves nothing.
    """
    if run.committed or run.previous is None:
        return failure
    touched = run.switched or isinstance(failure, SmokeFailed)
    begun = {step.name for step in run.steps}
    if run.kind == "rollback" and isinstance(failure, DeployFailed) and "start" in begun:
        now = "still serves" if _serves(run) else "does not answer either"
        return _but(RollbackFailed, failure, f"{run.previous.id} {now}.")
    if not touched:
        return failure
    if not _serves(run):
        now = f"The way back failed too: {run.previous.id} does not answer."
        return _but(RollbackFailed, failure, now) if run.switched else failure
    if isinstance(failure, DeployFailed):
        return _but(RolledBack, failure, f"{run.previous.id} is live and healthy.")
    return failure


def about_data(run: Run) -> str:
    """Given a deployment that failed, say how it leaves the data; empty: as it was.

    Going back is a matter of code alone when nothing was migrated, or when the release before
    works on what was. Else a person decides: since then rows may have been written, which a
    restore would lose.
    """
    known = run.facts.get("migrations") or {}
    before, after = known.get("before"), known.get("after")
    if run.previous is None or before == after:
        return ""
    state = (run.facts.get("rehearsal") or {}).get("state")
    stays = f"the database stays migrated to {', '.join(after or ()) or 'nothing'}"
    if state == "safe":
        return f"{stays}, on which {run.previous.id} was good in the rehearsal"
    found = "failed in the rehearsal" if state == "unsafe" else "was not rehearsed"
    return f"{stays}, on which {run.previous.id} {found}; {_ways(run)}"


def _ways(run: Run) -> str:
    """Say what a person may do, and how many rows a restore of the backup would lose."""
    forward, saved = "correct and deploy again", run.backup
    if saved is None:
        return forward
    try:
        found = access.database(run.target, run.settings, run.env_file)
        rows = sum(restore.counts(found, "live").values()) if found else None
    except Failure:
        rows = None
    more = "an unknown number of" if rows is None else f"{rows - saved.rows:+d}"
    return f"{forward}, or: inv restore {saved.name} ({more} rows since then)"


def _serves(run: Run) -> bool:
    try:
        now = traffic.live(run.target, run.settings, run.releases)
        settings = own(run.settings, run.previous)
        answer = health.await_good(run.target, settings, traffic.inside(settings))
    except Failure:
        return False
    same = now is not None and run.previous is not None and now.id == run.previous.id
    return same and answer.good


def _but(kind: type[Failure], failure: Failure, now: str) -> Failure:
    return kind(
        f"{failure.what}. {now}",
        where=failure.where,
        why=failure.why,
        next_step=failure.next_step if kind is RolledBack else "inv status; inv logs; docker ps",
    )
