"""What a release leans on: its environment, its compose file, the accessories, the front door."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy import health, journal, traffic
from deploy import host as hosts
from deploy.command import command, script
from deploy.docker import compose, confined, engine, proxy, render
from deploy.dotenv import fill_in, parse_env, write_env
from deploy.host.process import failed
from deploy.outcome import DeployFailed, Invalid
from deploy.pipeline import Done
from deploy.postgres import access
from deploy.redact import secret_values
from deploy.run import Run

if TYPE_CHECKING:
    from deploy.settings import Settings

# What containers see of the host, made first: the engine would make it root's. No user of theirs
# is known here, so each may write to its logs, where only the owner of ours gets through.
SHARED = """
umask 077
logs=$1; public=$2; proxy=$3; live=$4; shift 4
mkdir -p -- "$public"
for folder in "$public" "$proxy" "$live"; do
  [ "$(stat -c %a -- "$folder")" = 755 ] || chmod -- 0755 "$folder"
done
[ "$#" -gt 0 ] || exit 0
mkdir -p -- "$logs"
[ "$(stat -c %a -- "$logs")" = 700 ] || chmod -- 0700 "$logs"
[ -d "$logs/app" ] || mkdir -- "$logs/app"
[ "$(stat -c %a -- "$logs/app")" = 1777 ] || chmod -- 1777 "$logs/app"
for name in "$@"; do
  if [ -L "$logs/$name.log" ] || [ ! -e "$logs/$name.log" ]; then
    ln -s -f -n -- "app/$name.log" "$logs/$name.log"
  fi
done
"""
CERTIFIED = 10  # seconds that one look at the door may take
READY = 90  # seconds an accessory gets to become healthy, and the proxy to answer
MIGRATE_FILE = f"/proc/sys/{proxy.MIGRATE.replace('.', '/')}"


def provide(run: Run) -> Done:
    """Write the release's environment and compose file; start the accessories and the door.

    Raises:
        Invalid: The compose file cannot be used, or would read the host's own files.
        DeployFailed: Something does not start.
    """
    settings, layout, host = run.settings, run.layout, run.target
    place = layout.place(run.release.id, run.release.tag)
    read = (settings.deploy.compose_file, settings.deploy.env_example)
    confined.see_inside(host, place.source, read)
    environment = _environment(run)
    _share(run)
    _no_strangers(run, compose_file(run))
    if settings.app.accessories:
        _start_accessories(run)
        _await_accessories(run)
    _open_door(run)
    access.check_url(host, settings, environment.get("DATABASE_URL", ""))
    names = ", ".join((*settings.app.accessories, "proxy"))
    return Done(f"{names} run")


def compose_file(run: Run) -> dict[str, Any]:
    """Write the compose file that a release runs from; return the application's own.

    Raises:
        Invalid: Compose does not accept it.
    """
    settings, layout, host = run.settings, run.layout, run.target
    place = layout.place(run.release.id, run.release.tag)
    data = render.parse(
        hosts.read(host, f"{place.source}/{settings.deploy.compose_file}"),
        settings.deploy.compose_file,
    )
    migrates = host.run(command("test", "-e", MIGRATE_FILE)).ok
    if not migrates:
        run.warn("the host's kernel is older than 5.14: a switch may reset a connection")
    door = proxy.service(settings, layout.proxy, run.bind, migrates=migrates)
    text = render.render(data, settings, place, door)
    hosts.replace(host, place.compose_file, text.encode())
    checked = host.run(compose.check(settings, place))
    if not checked.ok:
        raise Invalid(
            "Compose does not accept the application's file",
            where=settings.deploy.compose_file,
            why=checked.tail(5),
            next_step="docker compose config",
        )
    return data


def _share(run: Run) -> None:
    """Make the folders that containers see.

    Raises:
        Invalid: They cannot be made as they must be.
    """
    layout = run.layout
    words = (layout.logs, layout.public, layout.proxy, layout.live, *run.settings.app.log_files)
    made = run.target.run(script(SHARED, *words))
    if not made.ok:
        raise Invalid(
            "The folders that containers share with us cannot be made",
            where=f"{run.target.name}:{layout.logs}, {layout.public}",
            why=made.tail(3),
            next_step=f"ls -la {layout.root} {layout.logs}; what is not this user's, remove",
        )


def _start_accessories(run: Run) -> None:
    """Start the accessories; of those that are there, the commit's file says nothing.

    By it Compose would start more of one, or what it says that one depends on.
    """
    settings, host, missing = run.settings, run.target, []
    for name in settings.app.accessories:
        text = host.ask(engine.inspect_service(settings.deploy.project, name))
        found = engine.parse_containers(text)
        for item in found:
            if not item.running:
                host.ask(engine.wake(item.id))
        if not found:
            missing.append(name)
    if missing:
        place = run.layout.place(run.release.id, run.release.tag)
        host.ask(compose.up_accessories(settings, place, missing))


def _open_door(run: Run) -> None:
    """Start the proxy, or make a running one read its configuration when that has changed."""
    settings, layout, host = run.settings, run.layout, run.target
    wanted, before = proxy.caddyfile(settings), hosts.read(host, layout.caddyfile)
    if wanted != before:
        hosts.replace(host, layout.caddyfile, wanted.encode(), "0644")
        if before and host.run(proxy.ask_upstream(settings)).ok:
            host.ask(proxy.reload(settings))
    start = compose.up_proxy(settings, layout.place(run.release.id, run.release.tag))
    result = host.run(start)
    if result.ok:
        _await_door(run)
        _await_certificate(run, before)
        return
    port = proxy.taken(result.err, settings)
    if port is None:
        raise failed(host.name, start, result)
    _back_to_the_door_before(run, before)
    free = "" if settings.proxy.domain else ", or set proxy.port"
    raise DeployFailed(
        f"Port {port} is taken by another program or container",
        where=f"{host.name}, {run.bind}:{port}",
        why=result.tail(1),
        next_step=f"see who has it: ss -ltnp 'sport = :{port}'; stop that{free}",
    )


def _await_door(run: Run) -> None:
    ends = time.monotonic() + READY
    while not run.target.run(proxy.ask_upstream(run.settings)).ok:
        if time.monotonic() > ends:
            name = run.settings.proxy.container
            raise DeployFailed(
                f"The proxy does not answer after {READY} s",
                where=run.target.name,
                why=run.target.run(engine.logs(name, 20)).tail(),
                next_step=f"docker logs {name}",
            )
        time.sleep(0.1)  # the interval of a poll that has a deadline


def _await_certificate(run: Run, before: str) -> None:
    """Wait until the proxy has a certificate for its domain: without one it answers nobody."""
    settings, domain = run.settings, run.settings.proxy.domain
    door, wait = traffic.inside(settings), settings.proxy.certificate_timeout
    ends = time.monotonic() + wait
    while domain and not (answer := health.ask(run.target, door, "/", CERTIFIED)).status:
        if time.monotonic() > ends:
            name = settings.proxy.container
            said = run.target.run(engine.logs(name, 20)).tail()
            _back_to_the_door_before(run, before)
            raise DeployFailed(
                f"The proxy got no certificate for {domain} within {wait:g} s",
                where=f"{run.target.name}, proxy.certificates: {settings.proxy.certificates}",
                why=f"{answer.as_text()}\n{said}",
                next_step=f"see that {domain} names the host in DNS, and that ports 80 and 443"
                " are reached from outside; then deploy again",
            )
        time.sleep(0.2)  # the interval of a poll that has a deadline


def _back_to_the_door_before(run: Run, caddyfile: str) -> None:
    """Remove the proxy that was made and cannot start; the one that it replaced comes back."""
    run.target.run(engine.remove(run.settings.proxy.container))
    if run.previous:
        place = run.layout.place(run.previous.id, run.previous.tag)
        hosts.replace(run.target, run.layout.caddyfile, caddyfile.encode(), "0644")
        run.target.run(compose.up_proxy(run.settings, place))


def _environment(run: Run) -> dict[str, str]:
    """Merge the host's environment with the caller's; made-up passwords are kept at once."""
    settings, layout, host = run.settings, run.layout, run.target
    place = layout.place(run.release.id, run.release.tag)
    quiet = journal.bookkeeping(host)
    example = parse_env(hosts.read(quiet, f"{place.source}/{settings.deploy.env_example}"))
    kept = parse_env(hosts.read(quiet, layout.env_file), layout.env_file)
    passed = _passed(settings)
    complete = completed(example, kept, settings)
    if complete != kept:
        hosts.replace(host, layout.env_file, write_env(complete))
    whole = {**complete, **passed}
    run.log.learn(secret_values(whole))
    hosts.replace(host, place.env_file, write_env(whole))
    return whole


def completed(
    example: Mapping[str, str], kept: Mapping[str, str], settings: Settings
) -> dict[str, str]:
    """Return the variables that a host keeps: what it has, and of the example what it has not.

    Args:
        example: The variables of the example.
        kept: Those of the host; none before the first deployment.
        settings: The settings, with what the caller passes.
    """
    url = _passed(settings).get("DATABASE_URL", "")
    fitting = {} if kept else access.from_url(url, settings, example)
    return fill_in({**example, **fitting}, kept)


def _passed(settings: Settings) -> dict[str, str]:
    given = settings.environment.passed.items()
    return {name: secret.get_secret_value() for name, secret in given}


def _no_strangers(run: Run, data: dict[str, object]) -> None:
    for service in run.settings.app.services:
        name = render.live_name(service, data, run.settings)
        result = run.target.run(engine.inspect_container(name))
        for item in engine.parse_containers(result.out) if result.ok else ():
            if item.labels.get(engine.PROJECT_LABEL) != run.settings.deploy.project:
                raise Invalid(
                    f"Container {name} was not started by this pipeline",
                    where=run.target.name,
                    next_step=f"docker rename {name} {name}_before, or remove it",
                )


def _await_accessories(run: Run) -> None:
    place = run.layout.place(run.release.id, run.release.tag)
    ends = time.monotonic() + READY
    while True:
        ids = run.target.ask(compose.accessory_ids(run.settings, place)).split()
        found = [
            item
            for identity in ids
            for item in engine.parse_containers(run.target.ask(engine.inspect_container(identity)))
        ]
        bad = [item for item in found if not item.running or item.health not in ("", "healthy")]
        if not bad and len(found) >= len(run.settings.app.accessories):
            return
        if time.monotonic() > ends:
            first = bad[0] if bad else None
            raise DeployFailed(
                f"An accessory is not healthy after {READY} s",
                where=run.target.name,
                why=run.target.run(engine.logs(first.id, 20)).tail() if first else "it is missing",
                next_step=f"docker logs {first.name}" if first else "docker ps --all",
            )
        time.sleep(0.3)
