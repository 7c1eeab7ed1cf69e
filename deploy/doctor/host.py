"""Checks of the host."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from deploy import host as hosts
from deploy import journal, lock, origin, releases
from deploy.checks import folders as places
from deploy.checks.finding import Finding, good, stop, warning
from deploy.command import command
from deploy.docker import proxy
from deploy.doctor import door
from deploy.doctor.visit import Check, Visit
from deploy.dotenv import parse_env
from deploy.outcome import Invalid
from deploy.postgres import backup
from deploy.postgres.restore import age
from deploy.redact import secret_values
from deploy.schedule import install as scheduling
from deploy.steps import prepare
from deploy.triggers import install, service

SKEW = 5.0  # seconds that two clocks may differ


def reached(visit: Visit) -> Iterator[Finding]:
    """See that the host answers, and how far its clock is from ours."""
    host = visit.session.target
    host.run(command("true"))  # so that opening the connection is not in what is measured
    before = time.time()
    told = host.ask(command("date", "+%s.%N"))
    after = time.time()
    yield good("reachable", f"{host.name} answers")
    off = skew(float(told), before, after)
    if abs(off) <= SKEW:
        yield good("clock", "it agrees with the one here")
        return
    how = f"{timedelta(seconds=round(abs(off)))} h {'ahead of' if off > 0 else 'behind'}"
    cure = "timedatectl on both shows which is wrong; timedatectl set-ntp true corrects it"
    yield warning("clock", f"that of {host.name} is {how} the one here", cure)


def skew(there: float, before: float, after: float) -> float:
    """Return how many seconds a clock is ahead, given when it was asked and when it answered."""
    return there - min(max(there, before), after)


def ready(visit: Visit) -> Iterator[Finding]:
    """See what preflight sees."""
    yield from prepare.look_there(visit.run)


def folders(visit: Visit) -> Iterator[Finding]:
    """See that the folders can be written, and by nobody else."""
    session = visit.session
    host, layout = session.target, session.layout
    allowed = layout.modes | {layout.keys: 0o700, layout.deploy_key: 0o600}
    user, there = places.look(host, allowed)
    if there:
        yield from places.findings(user, there.values(), allowed)
    elif places.can_make(host, layout.root):
        what = f"{layout.root} is not there yet; inv setup, or a deployment, makes it"
        yield good("folders", what)
    else:
        yield places.not_to_be_made(layout.root, user)


def environment(visit: Visit) -> Iterator[Finding]:
    """See that the application's environment can be read, by nobody else."""
    session, path = visit.session, visit.session.layout.env_file
    host = session.target
    rights = hosts.rights(host, path)
    if not rights:
        yield good("environment", "there is no .env yet; inv setup, or a deployment, makes it")
        return
    if rights.open:
        what = f"others may read {path} ({rights.mode})"
        yield warning("environment", what, f"chmod 600 {path} there")
    try:
        known = parse_env(hosts.read(journal.bookkeeping(host), path), path)
    except Invalid as error:
        yield stop("environment", f"{error.what}: {error.where}", error.next_step)
        return
    session.log.learn(secret_values(known))
    if not rights.open:
        yield good("environment", f"{len(known)} variables, its owner's alone")


def code_source(visit: Visit) -> Iterator[Finding]:
    """See that the host reaches the repository that it fetches the code from."""
    session, needed = visit.session, visit.tool == "fab"
    host, folder = session.target, session.layout.repository
    url = origin.known_url(host, folder, session.settings.git.url)
    if not url:
        what = "the host knows no repository to fetch the code from"
        cure = "fab -H HOST setup --github-url URL, or set git.url in invoke.yaml"
        yield stop("fetch", what, cure) if needed else good("fetch", f"{what}; inv needs none")
        return
    address = origin.address_of(url)
    session.log.learn(address.secrets)
    answer = host.run(origin.heads(folder, address, session.settings.git.branch))
    if answer.ok:
        yield good("fetch", f"{address.url} answers")
        return
    why = origin.telling(answer.err) or "no such branch"
    what = f"{address.url} cannot be fetched from there: {why}"
    cure = "inv setup shows the key that must be entered there; check git.url and git.branch too"
    yield stop("fetch", what, cure) if needed else warning("fetch", what, cure)


def hook(visit: Visit) -> Iterator[Finding]:
    """See that a push to the host deploys, as this project says."""
    session = visit.session
    host, layout = session.target, session.layout
    if not host.run(command("test", "-e", layout.pushed)).ok:
        yield good("hook", "there is no repository to push to yet; inv setup makes it")
        return
    place = install.place_of(session)
    if not host.run(command("test", "-x", layout.hook)).ok:
        what = f"{layout.hook} is not there, or may not be run: a push to the host does not deploy"
        yield warning("hook", what, "inv setup")
    elif install.untold(session, place):
        what = "the host deploys pushes by other settings, or another library, than this project's"
        yield warning("hook", what, "inv setup")
    elif install.unhooked(session, place):
        what = f"{layout.pushed} is not set up as it should be: a push may not deploy"
        yield warning("hook", what, "inv setup")
    else:
        yield good("hook", f"a push to {layout.pushed} deploys")


def listener(visit: Visit) -> Iterator[Finding]:
    """See that webhooks are heard, and get that far."""
    session = visit.session
    path = session.settings.webhook.path
    lacks = service.lacks(session)
    if lacks:
        hindrance = service.hindrance(session)
        cure = hindrance.next_step if hindrance else "inv setup"
        yield warning("listener", f"still to be done: {'; '.join(lacks)}", cure)
        return
    if not path:
        return
    door = hosts.read(session.target, session.layout.caddyfile)
    if not door:
        yield good("listener", f"it runs; {path} leads there from the first deployment on")
    elif proxy.passes(door, path):
        yield good("listener", f"webhooks at {path} are heard")
    else:
        what = f"it runs, and the proxy does not know {path} yet"
        yield warning("listener", what, "inv deploy tells it")


def timer(visit: Visit) -> Iterator[Finding]:
    """See that the host backs up its database by itself."""
    settings = visit.session.settings
    if not scheduling.wanted(settings):
        yield good("timer", "no backup each day is wanted")
        return
    by = scheduling.standing(visit.session.target, settings)
    error = scheduling.hindrance(visit.session.target, settings)
    if not by and error:
        what = f"no backup each day: {error.what}{f': {error.why}' if error.why else ''}"
        yield warning("timer", what, error.next_step)
    elif not by:
        what = "nothing on the host starts a backup each day"
        yield warning("timer", what, "inv backup.schedule")
    elif not scheduling.told(visit.session):
        what = f"the backup each day, by {by}, goes by other settings than these"
        yield warning("timer", what, "inv backup.schedule")
    else:
        yield good("timer", f"a backup each day, by {by}")


def backups(visit: Visit) -> Iterator[Finding]:
    """See how old the newest good backup is."""
    session = visit.session
    database = session.settings.database
    if not (database.service or database.client_image):
        yield good("backup", "there is no database")
        return
    found = backup.listing(session.target, session.layout.backups)
    newest = next((item for item in found if item.state == "good"), None)
    if newest is None and not releases.load(session.target, session.layout):
        yield good("backup", "none yet: nothing has been deployed")
    else:
        yield aged(newest.at if newest else "", datetime.now(UTC), database.max_age_hours)


def aged(at: str, now: datetime, most: float) -> Finding:
    """Return how it is with a newest good backup.

    Args:
        at: When it was taken, ISO time; empty when there is none.
        now: The time now.
        most: Hours that it may be old.
    """
    cure = "inv backup takes one; inv history says what became of the last ones"
    if not at:
        return warning("backup", "there is no good backup", cure)
    old = f"the newest good backup is {age(at, now)} old"
    if now - datetime.fromisoformat(at) > timedelta(hours=most):
        more = f"more than {most:g} h (database.max_age_hours)"
        return warning("backup", f"{old}, {more}", cure)
    return good("backup", old)


def lock_(visit: Visit) -> Iterator[Finding]:
    """See whether somebody is at work, or was killed at it."""
    host, path = visit.session.target, visit.session.layout.lock
    owner = lock.look(host, path)
    if owner:
        cure = "wait for it with --wait SECONDS; inv unlock shows what breaking it would break"
        yield stop("lock", f"it is held: {owner.as_text()}", cure)
    elif left := lock.left(host, path):
        what = f"left behind by a run that was killed: {left.as_text()}"
        yield warning("lock", what, "inv status; the next run puts right what it left")
    else:
        yield good("lock", "it is free")


CHECKS: Mapping[str, Check] = {
    "reachable": reached,
    "programs": ready,
    "folders": folders,
    "environment": environment,
    "fetch": code_source,
    "hook": hook,
    "listener": listener,
    "timer": timer,
    "backup": backups,
    "ports": door.ports,
    "front door": door.running,
    "certificate": door.certificate,
    "lock": lock_,
}
