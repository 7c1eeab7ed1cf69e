"""Before anything changes: preflight, the lock, the code, and what a release leans on."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta

from deploy import git, lock, origin, releases, served
from deploy.checks import machine
from deploy.checks.finding import Finding, stopping
from deploy.command import command, script
from deploy.host import Host
from deploy.layout import STAMP
from deploy.outcome import Invalid
from deploy.pipeline import Done
from deploy.releases import Release
from deploy.run import Run

TAKES_BACKUPS = ("deploy", "backup", "restore")
# The bytes of the live image and of the newest backup.
SIZES = """
docker image inspect --format '{{.Size}}' -- "$1" 2>/dev/null || echo 0
newest=$(ls -1t -- "$2"/*.sql.gz "$2"/*.sql.gz.age 2>/dev/null | head -n 1) || true
if [ -n "$newest" ]; then stat -c %s -- "$newest"; fi
"""


def preflight_here(run: Run) -> Done:
    """Find the commit in the checkout here, then look at the target and the builder.

    Raises:
        Invalid: The ref is unknown, or something is missing.
        Unreachable: The target cannot be reached.
    """
    here = run.builder
    run.source = git.from_checkout(here, str(run.folder), run.ref)
    return preflight(run)


def preflight(run: Run) -> Done:
    """Look at the target and the builder, changing nothing.

    Raises:
        Invalid: Something is missing; all of it is named at once.
        Unreachable: The target cannot be reached.
    """
    problems = stopping((*look_there(run), *look_here(run)))
    if problems:
        raise Invalid(
            "Something that a deployment needs is missing",
            where=run.target.name,
            why="; ".join(item.as_text() for item in problems),
            next_step="provide it, then deploy again; inv doctor looks at everything",
        )
    return Done(f"{run.target.name} is ready")


def look_there(run: Run) -> tuple[Finding, ...]:
    """Look at the programs, the engine and the disks of the target."""
    tools = list(machine.TOOLS)
    if run.settings.database.encrypt_to and run.kind in TAKES_BACKUPS:
        tools.append("age")
    name, root = run.target.name, run.settings.deploy.root
    seen = run.target.ask(machine.look(root, run.target.python, tools))
    return (*machine.programs(seen, name), *machine.disks(seen, name, _megabytes(run)))


def look_here(run: Run) -> tuple[Finding, ...]:
    """Look at what builds, when that is not the target itself."""
    if run.builder is run.target:
        return ()
    seen = run.builder.ask(machine.look("/", run.builder.python, ("docker", "git", "tar")))
    return machine.programs(seen, run.builder.name)


def _megabytes(run: Run) -> int:
    """Return the room that a run may need, in MB: what is configured, and what it will write."""
    least = run.settings.deploy.minimum_free_mb
    if run.kind == "rollback":  # it writes next to nothing, and somebody waits
        return least
    known = run.target.run(
        script(SIZES, f"{run.settings.deploy.project}:latest", run.layout.backups)
    )
    sizes = [int(word) for word in known.out.split() if word.isdigit()] if known.ok else []
    wanted = sum(sizes if run.kind == "deploy" else sizes[1:])
    return least + wanted * 3 // 2 // 1_000_000


def take_lock(run: Run) -> Done:
    """Make the folders and take the lock: from here on there is a journal and a log."""
    run.held = lock.take(run.target, run.layout, run.owner, run.wait)
    _later_than_all_before(run, run.held.newest)
    return Done(f"held by {run.owner.who} on {run.owner.machine}")


def _later_than_all_before(run: Run, newest: str) -> None:
    """Name the run after a time later than every run before, also when a clock was set back."""
    try:
        before = datetime.strptime(newest, STAMP).replace(tzinfo=UTC)
    except ValueError:
        return
    if run.started > before:
        return
    now = datetime.now(UTC).replace(microsecond=0)
    if now < before:  # else it only has waited
        run.warn(f"the clock here is behind the newest run on {run.target.name}, {newest}")
    run.started = max(now, before + timedelta(seconds=1))


def give_back_lock(run: Run, *, good: bool) -> None:
    """Release the lock when this run holds it.

    Args:
        run: The run.
        good: Whether it left nothing that the next one should look at.
    """
    if run.held:
        lost = run.held.lost()
        run.held.give_back()
        if lost and good:
            lock.disown(run.target, run.layout.lock, run.owner)


def fetch_here(run: Run) -> Done:
    """Export the commit that was found here to the target, and to the builder."""
    return _export(run, run.builder, str(run.folder))


def fetch_there(run: Run) -> Done:
    """Have the target fetch the code, and export the commit that is meant."""
    url, branch = run.settings.git.url, run.settings.git.branch
    run.source = origin.from_remote(run.target, run.layout.repository, url, run.ref, branch)
    return _export(run, run.target, run.layout.repository)


def fetch_pushed(run: Run) -> Done:
    """Export the branch as it is in the repository that people push to."""
    run.source = git.from_pushed(run.target, run.layout.pushed, run.settings.git.branch)
    return _export(run, run.target, run.layout.pushed)


def fetch_to_build(run: Run) -> Done:
    """Export the commit that was found here to the builder alone."""
    run.release = release_of(run)
    return _export_to_build(run, str(run.folder))


def _export(run: Run, host: Host, repository: str) -> Done:
    run.release = release_of(run)
    source = run.layout.place(run.release.id, run.release.tag).source
    git.export(host, repository, run.source.sha, run.target, source)
    releases.save(run.target, run.layout, run.release)
    run.build_folder = source
    if run.builder is not run.target:
        _export_to_build(run, repository)
    return Done(f"{run.source.short} ({run.source.ref})")


def _export_to_build(run: Run, repository: str) -> Done:
    run.scratch = tempfile.mkdtemp(prefix=scratch(run.id, run.mark))
    run.build_folder = f"{run.scratch}/source"
    git.export(run.builder, repository, run.source.sha, run.builder, run.build_folder)
    return Done(f"{run.source.short} ({run.source.ref})")


def scratch(run: str, mark: str) -> str:
    """Return what the names of a run's folders on the builder begin with."""
    return f"deploy-{run}-{mark}-"


def release_of(run: Run) -> Release:
    """Return a new release of the commit that a run is about."""
    identity = f"{run.started.strftime('%Y%m%d-%H%M%S')}-{run.source.short}"
    tag = f"{run.settings.deploy.project}:{run.source.short}"
    if run.source.dirty:
        names = ", ".join(line[3:] for line in run.source.dirty[:5])
        run.warn(f"uncommitted changes are not deployed: {names}")
    return Release(
        id=identity,
        sha=run.source.sha,
        ref=run.source.ref,
        tag=tag,
        created=run.started.isoformat(),
        served=served.remembered(run.settings),
    )


def abandon(run: Run) -> None:
    """Mark a release that never made it, so that nobody rolls back to it.

    Of one that was not even fetched nothing stays: the disk may be full of it.
    """
    if not hasattr(run, "release"):
        return
    if not run.build_folder:
        folder = run.layout.release(run.release.id)
        run.target.ask(command("rm", "-r", "-f", "--", folder))
        return
    failed = releases.settled(run.release, "failed")
    releases.save(run.target, run.layout, failed)


def clean_builder(run: Run) -> None:
    """Remove the export that was only needed for tests and build on this machine."""
    if run.scratch:
        run.builder.run(command("rm", "-r", "-f", "--", run.scratch))
