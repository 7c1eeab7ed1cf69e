"""A copy of the database in a compose project of its own, and releases that use it there.

From its network nothing leads to what is live, nor out of the host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy import health, smoke
from deploy import host as hosts
from deploy.command import command, script
from deploy.docker import compose, confined, engine, render
from deploy.docker.compose import Place
from deploy.health import Address
from deploy.host import Host
from deploy.host.process import CommandFailed
from deploy.outcome import DeployFailed
from deploy.pipeline import undisturbed
from deploy.postgres import access, restore
from deploy.postgres.backup import Backup
from deploy.releases import Release
from deploy.run import Run
from deploy.served import own
from deploy.smoke import Finding
from deploy.steps import data, live

if TYPE_CHECKING:
    from deploy.settings import Settings

START = "start"
READY = 90  # seconds that the server gets to come up
# Over TCP: the server that only initialises listens on the socket alone.
UP = "docker exec \"$1\" sh -c 'exec pg_isready --quiet --host 127.0.0.1'"
# The roles first, with their passwords: a dump has none. The one that is there already fails.
ROLES = """
docker exec "$1" sh -c 'exec pg_dumpall --roles-only -U "$POSTGRES_USER"' |
  docker exec --interactive "$2" sh -c 'exec psql -X -w -q -U "$POSTGRES_USER" -d template1' \
    >/dev/null 2>&1
"""


@dataclass(frozen=True)
class Copy:
    """A compose project of its own: a copy of the database, the live release and the new one.

    Args:
        settings: Those of the new release there.
        before: Where the live release lies.
        served: The settings of the live release there.
        after: Where the new release lies.
    """

    settings: Settings
    before: Place
    served: Settings
    after: Place

    @property
    def project(self) -> str:
        """Return the project's name."""
        return self.settings.deploy.project


def stage(settings: Settings, run: str, mark: str) -> str:
    """Return the compose project that a run rehearses in."""
    return f"{settings.deploy.project}-rehearsal-{run}-{mark}"


def copy_of(run: Run, previous: Release) -> Copy:
    """Return the copy that a run rehearses on, which is not there yet.

    Args:
        run: The run.
        previous: The release that is live.
    """
    project = stage(run.settings, run.id, run.mark)
    folder = run.layout.release(run.release.id)
    before = run.layout.place(previous.id, previous.tag)
    after = run.layout.place(run.release.id, run.release.tag)
    return Copy(
        settings=_named(run.settings, project),
        before=replace(before, compose_file=f"{folder}/rehearsal-before.yml"),
        served=_named(own(run.settings, previous), project),
        after=replace(after, compose_file=f"{folder}/rehearsal.yml"),
    )


def _named(settings: Settings, project: str) -> Settings:
    deploy = settings.deploy.model_copy(update={"project": project})
    return settings.model_copy(update={"deploy": deploy})


def make(run: Run, copy: Copy, previous: Release, dump: Backup) -> None:
    """Start a server like the live one, and load a backup into it.

    Args:
        run: The run.
        copy: What is made.
        previous: The release that is live.
        dump: The backup.

    Raises:
        CommandFailed: It cannot be done.
        DataFailed: The same.
        Invalid: A release's compose file lacks what it takes, or reads the host's own files.
    """
    host, database = run.target, run.settings.database
    identity = access.container(host, run.settings)
    (alive,) = engine.parse_containers(host.ask(engine.inspect_container(identity)))
    served = compose.service_name(copy.served.app.services[0], previous.id)
    comes = compose.service_name(copy.settings.app.services[0], run.release.id)
    images = {database.service: alive.image_id, served: previous.image}
    _write(run, run.layout.place(previous.id, previous.tag), copy.before, images)
    _write(
        run,
        run.layout.place(run.release.id, run.release.tag),
        copy.after,
        {comes: run.release.image},
    )
    host.ask(compose.up_one(copy.settings, copy.before, database.service))
    scratch = data.database(host, copy.settings)
    _await_server(host, scratch.container)
    host.ask(script(ROLES, identity, scratch.container))
    pair = restore.pair_of(scratch, run.started)
    restore.swap_in(scratch, pair, dump.path, dump, run.log.say)


def _write(run: Run, source: Place, place: Place, images: Mapping[str, str]) -> None:
    file = render.parse(hosts.read(run.target, source.compose_file), source.compose_file)
    text = render.apart(file, images, source)
    confined.see_inside(run.target, source.source, render.own_files(text))
    hosts.replace(run.target, place.compose_file, text.encode())


def _await_server(host: Host, container: str) -> None:
    ends = time.monotonic() + READY
    while not (result := host.run(script(UP, container))).ok:
        if time.monotonic() > ends:
            raise CommandFailed(
                f"The server for the copy does not answer after {READY} s",
                where=host.name,
                why=f"{result.tail(1)}\n{host.run(engine.logs(container, 20)).tail()}",
            )
        time.sleep(0.2)  # the interval of a poll that has a deadline


def migrate(run: Run, copy: Copy) -> float:
    """Run the migrations of the new release on the copy; return the seconds they took.

    Raises:
        DeployFailed: They failed.
    """
    began = time.monotonic()
    result = live.apply(run, compose.migration(copy.settings, copy.after))
    if not result.ok:
        raise DeployFailed(
            "The migrations failed in the rehearsal",
            where=f"{run.target.name}, on a copy of the database",
            why=result.tail(30),
            next_step="correct the migration and deploy again; nothing was changed",
        )
    return time.monotonic() - began


def test(run: Run, copy: Copy, served: Settings) -> tuple[Finding, ...]:
    """Start the live release on the copy, test it, and take it away again.

    Args:
        run: The run.
        copy: The copy.
        served: The settings of the live release there, with the checks that are wanted.

    Raises:
        CommandFailed: It cannot be started at all.
    """
    host, project, place = run.target, copy.project, copy.before
    service = compose.service_name(served.app.services[0], place.release)
    host.ask(compose.up_one(served, place, service))
    found = engine.parse_containers(host.ask(engine.inspect_service(project, service)))
    address = next((ip for item in found for ip in item.addresses.values()), "")
    base = Address(f"http://{address}:{served.app.port}")
    answer = health.await_good(host, served, base)
    detail = f"answers after {answer.seconds:.2f} s" if answer.good else answer.as_text()
    findings = [Finding(START, ok=answer.good, detail=detail)]
    if answer.good:
        found = engine.parse_containers(host.ask(engine.inspect_service(project, service)))
        findings.extend(smoke.run(host, served, base, found))
    for item in found:  # for the log alone
        host.run(engine.logs(item.id, 20))
    host.ask(engine.remove_service(project, service))
    return tuple(findings)


def remove(run: Run, copy: Copy) -> None:
    """Remove the copy, and all that was started on it."""
    files = (copy.before.compose_file, copy.after.compose_file)
    with undisturbed():
        run.target.run(engine.remove_project(copy.project))
        run.target.run(command("rm", "-f", "--", *files))
