"""The database on its own: a backup when asked for, and a restore with a way back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy import health, traffic
from deploy.host import Host
from deploy.outcome import DataFailed, Failure
from deploy.pipeline import Done
from deploy.postgres import access, restore
from deploy.postgres.access import Database
from deploy.run import Run
from deploy.served import own
from deploy.steps import make

if TYPE_CHECKING:
    from deploy.settings import Settings


def database(host: Host, settings: Settings) -> Database:
    """Return the application's database.

    Raises:
        DataFailed: None is configured, or it does not run.
    """
    found = access.database(host, settings)
    if found is None:
        raise DataFailed(
            "No database container runs",
            where=host.name,
            next_step="set database.service in invoke.yaml, or inv deploy",
        )
    return found


def back_up(run: Run) -> Done:
    """Back up the database, and let go of old backups; a failure is one."""
    try:
        found = make.save(run, database(run.target, run.settings))
        make.prune_backups(run, found)
        return make.saved(found)
    except DataFailed as error:
        run.facts["backup"] = {"state": "failed", "why": error.as_text()}
        raise


def bring_back(run: Run) -> Done:
    """Replace the database by a backup, keeping the one before until all is well."""
    found = database(run.target, run.settings)
    done = restore.restore(found, run.ref, make.origin(run), datetime.now(UTC), run.log.say)
    run.restored = done
    run.facts["backup"] = {"state": "good", "name": done.safety.name, "bytes": done.safety.bytes}
    run.facts["restore"] = {"file": run.ref, "before": done.rows_before, "after": done.rows_after}
    return Done(f"{done.rows_before} rows replaced by {done.rows_after}")


def bring_forward(run: Run) -> None:
    """Put the database that was live before a restore back in its place."""
    if run.restored is not None:
        restore.undo(database(run.target, run.settings), run.restored)


def see_it_work(run: Run) -> Done:
    """See that the live release is healthy on the restored database, then let the old one go."""
    if run.previous is not None:
        settings = own(run.settings, run.previous)
        url = traffic.inside(settings) + settings.app.health_path
        answer = health.await_good(run.target, run.settings, url)
        if not answer.good:
            raise DataFailed(
                "The live release is not healthy on the restored database",
                where=run.target.name,
                why=answer.as_text(),
                next_step="the database before is live again",
            )
    try:
        if run.restored is not None:
            restore.finish(database(run.target, run.settings), run.restored)
    except Failure as error:
        run.warn(f"the database before could not be dropped: {error.what}")
    run.restored = None
    return Done("healthy" if run.previous else "nothing is live")
