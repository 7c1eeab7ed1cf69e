"""Before anything changes: preflight, the lock, the code, and what a release leans on."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta

from deploy import git, lock, origin, releases
from deploy.command import command, script
from deploy.docker import engine
from deploy.host import Host
from deploy.layout import STAMP
from deploy.outcome import Failure, Invalid
from deploy.pipeline import Done
from deploy.releases import Release
from deploy.run import Run

FREE_SPACE = """
folder=$1
while [ ! -e "$folder" ]; do folder=$(dirname -- "$folder"); done
df -Pm -- "$folder" "$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || echo /)" \
  2>/dev/null | awk 'NR > 1 {print $4, $6}' || true
"""
TOOLS = 'for tool in "$@"; do command -v -- "$tool" >/dev/null || echo "$tool"; done'
FOLDERS = """
umask 077
for folder in "$@"; do
  [ -d "$folder" ] || mkdir -p -- "$folder"
done
chmod -- 0755 "$1"
"""
NEWEST = "ls -1 -- \"$1\" | sed -n 's/[.]jsonl$//p' | sort | tail -n 1"
PYTHON = "import sys; sys.exit(sys.version_info < (3, 11))"


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
    tools = ("docker", "git", "curl", "awk", "gzip", "tar", "flock", "setsid", run.target.python)
    problems = _problems(run.target, tools)
    if not problems and not run.target.run(command(run.target.python, "-c", PYTHON)).ok:
        problems.append(f"{run.target.name} has a Python older than 3.11 (apt-get install python3)")
    if run.builder is not run.target:
        problems += _problems(run.builder, ("docker", "git", "tar"))
    problems += _space(run)
    if problems:
        raise Invalid(
            "Something that a deployment needs is missing",
            where=run.target.name,
            why="; ".join(problems),
            next_step="provide it, then deploy again",
        )
    return Done(f"{run.target.name} is ready")


def _problems(host: Host, tools: tuple[str, ...]) -> list[str]:
    missing = host.ask(script(TOOLS, *tools)).split()
    if missing:
        return [f"{host.name} has no {', '.join(missing)} (apt-get install)"]
    found = []
    if not (engine_up := host.run(engine.server_version())).ok:
        found.append(f"no Docker engine answers on {host.name}: {engine_up.tail(1)}")
    if not host.run(command("docker", "compose", "version", "--short")).ok:
        found.append(f"{host.name} has no Docker Compose v2")
    return found


def _space(run: Run) -> list[str]:
    least = run.settings.deploy.minimum_free_mb
    result = run.target.run(script(FREE_SPACE, run.settings.deploy.root))
    found = {}
    for line in result.out.splitlines():
        free, _, mount = line.partition(" ")
        if free.lstrip("-").isdigit():
            found[mount] = int(free)
    return [
        f"{run.target.name} has {free} MB free on {mount}, deploy.minimum_free_mb is {least}"
        " (see: df -h; docker system df)"
        for mount, free in found.items()
        if free < least
    ]


def take_lock(run: Run) -> Done:
    """Make the folders and take the lock: from here on there is a journal and a log."""
    try:
        run.target.ask(script(FOLDERS, *run.layout.folders))
    except Failure as error:
        raise Invalid(
            "The folders on the host cannot be made",
            where=f"{run.target.name}:{run.layout.root}",
            why=error.why,
            next_step=f"make {run.layout.root} writable for this user, or set deploy.root",
        ) from error
    run.held = lock.take(run.target, run.layout.lock, run.owner, run.wait)
    _later_than_all_before(run)
    return Done(f"held by {run.owner.who} on {run.owner.machine}")


def _later_than_all_before(run: Run) -> None:
    """Name the run after a time later than every run before, also when a clock was set back."""
    newest = run.target.ask(script(NEWEST, run.layout.journal)).strip()
    try:
        before = datetime.strptime(newest, STAMP).replace(tzinfo=UTC)
    except ValueError:
        return
    if run.started <= before:
        run.warn(f"the clock here is behind the newest run on {run.target.name}, {newest}")
        run.started = before + timedelta(seconds=1)


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


def fetch_to_build(run: Run) -> Done:
    """Export the commit that was found here to the builder alone."""
    run.release = _release(run)
    return _export_to_build(run, str(run.folder))


def _export(run: Run, host: Host, repository: str) -> Done:
    run.release = _release(run)
    source = run.layout.place(run.release.id, run.release.tag).source
    git.export(host, repository, run.source.sha, run.target, source)
    releases.save(run.target, run.layout, run.release)
    run.build_folder = source
    if run.builder is not run.target:
        _export_to_build(run, repository)
    return Done(f"{run.source.short} ({run.source.ref})")


def _export_to_build(run: Run, repository: str) -> Done:
    run.scratch = tempfile.mkdtemp(prefix="deploy-")
    run.build_folder = f"{run.scratch}/source"
    git.export(run.builder, repository, run.source.sha, run.builder, run.build_folder)
    return Done(f"{run.source.short} ({run.source.ref})")


def _release(run: Run) -> Release:
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
