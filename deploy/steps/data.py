"""The database on its own: a backup when asked for, and a restore with a way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy import health, smoke, traffic
from deploy.host import Host
from deploy.outcome import DataFailed, Failure
from deploy.pipeline import Done
from deploy.postgres import access, backup, restore, sealed
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup
from deploy.postgres.download import download
from deploy.postgres.dump import Contents, Damaged, Say
from deploy.postgres.restore import Restored
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
        raise access.none_runs(host, settings)
    return found


def back_up(run: Run) -> Done:
    """Back up the database, and let go of old backups; a failure is one."""
    try:
        found = make.save(run, database(run.target, run.settings))
        make.prune_backups(run, found)
        return make.copied(run, found)
    except DataFailed as error:
        run.facts["backup"] = {"state": "failed", "why": error.as_text()}
        raise


def decrypt(run: Run, identity: Path) -> Done:
    """Bring an encrypted backup here, and send back what it holds, for the restore alone.

    Args:
        run: The run; its `ref` names the backup.
        identity: The file with the private key.

    Raises:
        DataFailed: It did not arrive, or this is not its key.
    """
    found = database(run.target, run.settings)
    item = restore.described(found, restore.path_of(found.folder, run.ref))
    copy = download(run.target, item, run.folder / "backups", run.log.say)
    sealed.decrypt(run.target, item, copy, identity, found.deadline)
    return Done(f"{item.name}, until it is restored")


def remove_decrypted(run: Run) -> None:
    """Remove what was decrypted for a restore."""
    sealed.remove(run.target, restore.path_of(run.layout.backups, run.ref))


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
        door = traffic.inside(settings)
        answer = health.await_good(run.target, settings, door)
        if not answer.good:
            raise _not_well(run, answer.as_text())
        found = health.containers_of(run.target, settings, run.previous.id)
        bad = [item for item in smoke.run(run.target, settings, door, found) if not item.ok]
        if bad:
            raise _not_well(run, "; ".join(f"{item.name}: {item.detail}" for item in bad))
    if run.restored is not None:
        _let_go(run, run.restored)
    run.restored = None
    return Done("healthy" if run.previous else "nothing is live")


def _not_well(run: Run, why: str) -> DataFailed:
    return DataFailed(
        "The live release is not well on the restored database",
        where=run.target.name,
        why=why,
        next_step="the database before is live again; name an older backup of: inv backup.list",
    )


def _let_go(run: Run, done: Restored) -> None:
    """Back up once more what was live before, which took rows until the swap, then drop it."""
    found, now = database(run.target, run.settings), datetime.now(UTC)
    try:
        saved = restore.save_before(found, done.pair, make.origin(run), now, run.log.say)
        run.facts["backup"] = {"state": "good", "name": saved.name, "bytes": saved.bytes}
        restore.finish(found, done)
    except Failure as error:
        run.warn(f"the database before stays beside, as {done.pair.old}: {error.as_text()}")


def bring_beside(run: Run, name: str) -> Done:
    """Make a database from a backup, beside the live one."""
    found, at = database(run.target, run.settings), datetime.now(UTC)
    contents = restore.beside(found, run.ref, name, at, run.log.say)
    run.facts["restore"] = {"file": run.ref, "beside": name, "after": contents.rows}
    return Done(f"{contents.rows} rows in database {name}")


def all_of(saved: Sequence[Backup], _name: str) -> Sequence[Backup]:
    """Return all the backups there are."""
    return saved


def one_of(saved: Sequence[Backup], name: str) -> Sequence[Backup]:
    """Return the backup of a name, or the newest when none is named."""
    return [item for item in saved if name in ("", item.name, item.path)][:1]


def read_through(found: Database, item: Backup, say: Say) -> Contents:
    """Read a backup from its first byte to its last, and hold it to its manifest."""
    return restore.verify(found, item, say)


def restored_apart(found: Database, item: Backup, say: Say) -> Contents:
    """Read a backup, then restore it into a database that is thrown away."""
    contents = restore.verify(found, item, say)
    if item.encrypted:  # nothing on the host can read it
        return contents
    return restore.prove(found, item, datetime.now(UTC), say)


def verify(
    run: Run,
    choose: Callable[[Sequence[Backup], str], Sequence[Backup]],
    check: Callable[[Database, Backup, Say], Contents],
) -> Done:
    """See whether backups are good, and write into their manifests what was found.

    Args:
        run: The run; its `ref` may name a backup.
        choose: Which of those that are there, given that name.
        check: How to see it.

    Raises:
        DataFailed: There is none, or one is damaged, which its manifest says from now on.
    """
    found = database(run.target, run.settings)
    chosen = choose(backup.listing(run.target, found.folder), run.ref)
    if not chosen:
        what = f"There is no backup {run.ref}" if run.ref else "There is no backup yet"
        raise DataFailed(what, where=f"{run.target.name}:{found.folder}", next_step="inv backup")
    told = [_verified(run, found, item, check) for item in chosen]
    run.facts["verified"] = told
    run.say_all(f"{item['name']}: {item['state']}, {item['how']}" for item in told)
    bad = [item for item in told if item["state"] != "good"]
    if bad:
        raise DataFailed(
            f"{len(bad)} of {len(told)} backups are not good",
            where=f"{run.target.name}:{found.folder}",
            why="\n".join(f"{item['name']}: {item['how']}" for item in bad),
            next_step="inv backup",
        )
    return Done(f"{len(told)} good")


def _verified(
    run: Run, found: Database, item: Backup, check: Callable[[Database, Backup, Say], Contents]
) -> dict[str, Any]:
    try:
        contents = check(found, item, run.log.say)
    except Damaged as error:
        if item.state == "good":
            backup.write(run.target, replace(item, state="damaged", why=error.why))
        return {"name": item.name, "state": "damaged", "how": error.why}
    except DataFailed as error:  # of the server, perhaps: the file is what it was
        return {"name": item.name, "state": "not proved", "how": f"{error.what}: {error.why}"}
    if item.sha256 or backup.is_garbled(item, found.prefix):
        backup.write(run.target, backup.described(item, contents, datetime.now(UTC)))
    how = f"{contents.rows} rows"
    if item.encrypted:
        how += ", by its check sum alone: it is encrypted"
    return {"name": item.name, "state": "good", "how": how}
