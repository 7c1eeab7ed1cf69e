"""The database on its own: a backup when asked for, and a restore with a way back."""

from __future__ import annotations

from datetime import UTC, datetime

from deploy import health, traffic
from deploy.outcome import DataFailed, Failure
from deploy.pipeline import Done
from deploy.postgres import access, backup, restore
from deploy.run import Run
from deploy.steps.make import prune_backups


def database(run: Run) -> str:
    """Return the container of the database.

    Raises:
        DataFailed: None is configured, or it does not run.
    """
    found = access.container(run.target, run.settings)
    if not found:
        raise DataFailed(
            "No database container runs",
            where=run.target.name,
            next_step="set database.service in invoke.yaml, or inv deploy",
        )
    return found


def back_up(run: Run) -> Done:
    """Back up the database, and let go of old backups; a failure is one."""
    try:
        taken = backup.take(
            run.target,
            container=database(run),
            folder=run.layout.backups,
            prefix=run.settings.database.backup_prefix,
            release=run.previous.id if run.previous else "",
            at=datetime.now(UTC),
            deadline=run.settings.database.deadline,
        )
    except DataFailed as error:
        run.facts["backup"] = {"state": "failed", "why": error.as_text()}
        raise
    run.facts["backup"] = {"state": "good", "name": taken.name, "bytes": taken.bytes}
    run.found = taken
    prune_backups(run)
    return Done(f"{taken.name}, {taken.rows} rows, {taken.bytes} bytes")


def bring_back(run: Run) -> Done:
    """Replace the database by a backup, keeping the one before until all is well."""
    done = restore.restore(
        run.target,
        container=database(run),
        folder=run.layout.backups,
        file=run.ref,
        at=datetime.now(UTC),
        prefix=run.settings.database.backup_prefix,
        release=run.previous.id if run.previous else "",
        deadline=run.settings.database.deadline,
        say=run.log.say,
    )
    run.found = done
    run.facts["backup"] = {"state": "good", "name": done.safety.name, "bytes": done.safety.bytes}
    run.facts["restore"] = {"file": run.ref, "before": done.rows_before, "after": done.rows_after}
    return Done(f"{done.rows_before} rows replaced by {done.rows_after}")


def bring_forward(run: Run) -> None:
    """Put the database that was live before a restore back in its place."""
    if isinstance(run.found, restore.Restored):
        restore.undo(run.target, database(run), run.found)


def see_it_work(run: Run) -> Done:
    """See that the live release is healthy on the restored database, then let the old one go."""
    if run.previous is not None:
        url = traffic.front_door(run.settings, "127.0.0.1") + run.settings.app.health_path
        answer = health.await_good(run.target, run.settings, url)
        if not answer.good:
            raise DataFailed(
                "The live release is not healthy on the restored database",
                where=run.target.name,
                why=answer.as_text(),
                next_step="the database before is live again; inv backup.list",
            )
    if isinstance(run.found, restore.Restored):
        try:
            restore.finish(run.target, database(run), run.found)
        except Failure as error:
            run.warn(f"the database before could not be dropped: {error.what}")
    return Done("healthy" if run.previous else "nothing is live")
