"""The verbs: what both command lines call, on an open session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deploy import health, journal, lock, releases, runbook, smoke, status, traffic
from deploy.command import Command, command, script
from deploy.conduct import conduct
from deploy.detached import launch
from deploy.docker import engine
from deploy.outcome import DeployFailed, Invalid
from deploy.pipeline import Step, execute
from deploy.report import text
from deploy.served import own
from deploy.session import Session
from deploy.steps import prepare

FOLLOW = 86_400  # seconds after which following a log ends by itself
# By name, since it is rotated; what tail says of that would look like a line of the log. One that
# becomes a link meanwhile tail lets be by itself, and so waits for nothing.
FOLLOW_APP = """
tail --follow=name --retry --lines "$2" -- "$1" 2>/dev/null &
while kill -0 "$!" && [ ! -L "$1" ]; do sleep 1; done
kill "$!"
echo "$1 has become a link, which is not followed" >&2
exit 1
"""
MOST = 1_000_000  # records, or lines of a log, that are asked for at once


def deploy_from_here(session: Session, ref: str, wait: float, steps: Sequence[Step]) -> str:
    """Test and build here, ship the image, and make it live, by these steps."""
    run = session.waiting(wait).run("deploy", session.here, ref)
    return text.report(conduct(run, steps))


def deploy_there(session: Session, ref: str, wait: float, steps: Sequence[Step]) -> str:
    """Have the host fetch, test and build the code, and make it live, by these steps."""
    run = session.waiting(wait).run("deploy", session.target, ref)
    return text.report(conduct(run, steps))


def rollback(session: Session, to: str, wait: float) -> str:
    """Go back to the release that was live and healthy before, or to a named one."""
    run = session.waiting(wait).run("rollback", session.target, to)
    record = conduct(run, runbook.rollback())
    return text.report(record)


def rotate(session: Session, wait: float) -> str:
    """Give the database a new password, and the live release with it, by a switch."""
    run = session.waiting(wait).run("rotate", session.target)
    return text.report(conduct(run, runbook.rotation()))


def build(session: Session, ref: str) -> str:
    """Test and build the image of a commit on this machine, and leave it there."""
    run = session.run("build", session.here, ref)
    try:
        execute(run, runbook.build())
    finally:
        prepare.clean_builder(run)
    return f"{run.release.tag} is built: {run.release.image}"


def look(session: Session) -> dict[str, Any]:
    """Say what is live, what a rollback would bring, and who holds the lock."""
    return status.look(session)


def history(session: Session, limit: int) -> list[dict[str, Any]]:
    """Return the newest records, newest first."""
    if not 1 <= limit <= MOST:
        raise Invalid(f"--limit must be at least 1 and at most {MOST}", where="--limit")
    return journal.records(session.target, session.layout.records, limit)


def report(session: Session, run: str) -> dict[str, Any]:
    """Return the record of one run, or of the newest.

    Raises:
        Invalid: There is no such run.
    """
    found = journal.records(session.target, session.layout.records, 1000)
    wanted = [item for item in found if not run or str(item["id"]).startswith(run)]
    if not wanted:
        what = f"There is no run {run}" if run else "There was no run yet"
        raise Invalid(what, where=session.target.name, next_step="inv history")
    return wanted[0]


def smoke_test(session: Session) -> str:
    """Run the smoke tests on what is live, through the front door.

    Raises:
        SmokeFailed: One of them failed.
    """
    host, settings = session.target, session.settings
    health.need_engine(host)
    live = traffic.live(host, settings, releases.load(host, session.layout))
    if live is None:
        raise DeployFailed("Nothing is live", where=host.name, next_step="inv deploy")
    settings = own(settings, live)
    door = traffic.inside(settings)
    found = smoke.run(host, settings, door, health.containers_of(host, settings, live.id))
    smoke.must_pass(found, host.name)
    return "\n".join(f"✓ {item.name}: {item.detail}" for item in found)


def logs(session: Session, name: str, lines: int, *, follow: bool) -> None:
    """Show what the live service wrote, or one of the log files on the host.

    Args:
        session: The session.
        name: A service of the release, `deploy` for the newest run, or a log file's name.
        lines: How many of the last lines.
        follow: Whether to wait for more.

    Raises:
        Invalid: There is no such log.
    """
    if not 0 <= lines <= MOST:
        raise Invalid(f"--lines must be at least 0 and at most {MOST}", where="--lines")
    settings, host = session.settings, session.target
    services = (*settings.app.services, *settings.app.accessories)
    wait = ("--follow",) if follow else ()
    if name == "deploy":
        what = _file(session, _newest_log(session), *wait, "--lines", str(lines))
    elif name in services or not name:
        identity = _container(session, name or settings.app.services[0])
        argv = ("docker", "logs", *wait, "--tail", str(lines), "--", identity)
        what = command(*argv, deadline=FOLLOW)
    elif name.removesuffix(".log") in settings.app.log_files:
        what = _app_log(session, name.removesuffix(".log"), lines, follow=follow)
    else:
        files = (f"{item}.log" for item in settings.app.log_files)
        known = ", ".join((*services, "deploy", *files))
        raise Invalid(f"There is no log {name[:80]!r}", next_step=f"name one of: {known}")
    result = host.run(what, session.print)
    if not result.ok:
        raise DeployFailed("The log cannot be read", where=host.name, why=result.tail(3))


def _app_log(session: Session, name: str, lines: int, *, follow: bool) -> Command:
    path = f"{session.layout.app_logs}/{name}.log"
    # The application writes there, and could lead us to any file that we may read.
    if session.target.run(command("test", "-L", path)).ok:
        raise Invalid(
            f"{path} is a link, which is not followed",
            where=session.target.name,
            why="the application has made it, and it may lead anywhere",
            next_step="inv logs shows what the live service wrote",
        )
    shown = _file(session, path, "--lines", str(lines))
    return script(FOLLOW_APP, path, str(lines), deadline=FOLLOW) if follow else shown


def _newest_log(session: Session) -> str:
    newest = history(session, 1)
    if not newest:
        raise Invalid("There was no run yet", where=session.target.name, next_step="inv deploy")
    return str(newest[0]["log"])


def _file(session: Session, path: str, *options: str) -> Command:
    # What tail says of a file that is not there would look like a line of the log.
    if not session.target.run(command("test", "-f", path)).ok:
        raise Invalid(
            f"There is no file {path}",
            where=session.target.name,
            why="nothing has been written to it yet",
            next_step="inv logs shows what the live service wrote",
        )
    return command("tail", *options, "--", path, deadline=FOLLOW)


def _container(session: Session, service: str) -> str:
    health.need_engine(session.target)
    found = engine.parse_containers(
        session.target.ask(engine.inspect_service(session.settings.deploy.project, service))
    )
    running = [item for item in found if item.running] or list(found)
    if not running:
        raise Invalid(
            f"No container of {service} is there",
            where=session.target.name,
            next_step="inv status",
        )
    live = [item for item in running if item.name == item.labels.get(engine.LIVE_NAME_LABEL)]
    return (live or running)[0].id


def unlock(session: Session, *, yes: bool) -> str:
    """Show who holds the lock, and what the host does by itself; end both when told to.

    Raises:
        Invalid: It is held and nobody said yes.
    """
    host, layout = session.target, session.layout
    owner, working = lock.look(host, layout.lock), launch.working(host, layout)
    if owner is None and not working:
        return "The lock is free."
    what = [f"the lock of {owner.as_text()}"] if owner else []
    what += [f"the host's part of run {working}, which undoes what it has begun"] if working else []
    if not yes:
        raise Invalid(
            "The lock is held",
            where=host.name,
            why=f"this would break: {'; '.join(what)}",
            next_step="wait for it; or, when it must not go on: inv unlock --yes",
        )
    if working:
        launch.end(host, layout)
    lock.break_open(host, layout.lock)
    return f"Broken: {'; '.join(what)}"
