"""The parts that any application needs: programs, folders, environment, and the daily backup."""

from __future__ import annotations

from deploy import health
from deploy import host as hosts
from deploy.checks import folders as places
from deploy.checks import machine, packages
from deploy.checks.finding import stopping
from deploy.command import command, script
from deploy.dotenv import GENERATE, parse_env, write_env
from deploy.outcome import DeployFailed, Invalid
from deploy.schedule import install as scheduling
from deploy.setup.site import Site
from deploy.steps import services

BY_HAND = "https://docs.docker.com/engine/install"
OVER_SSH = ("ssh", "ssh-keygen", "ssh-keyscan")
# A run that was killed may have left dpkg at work, or half of what it did.
REFRESH = """
export DEBIAN_FRONTEND=noninteractive
ends=$((SECONDS + 180))
until dpkg --force-confold --configure -a; do [ "$SECONDS" -lt "$ends" ]; sleep 1; done
apt-get -qq -o DPkg::Lock::Timeout=180 update
"""
INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -y -o DPkg::Lock::Timeout=180 -o Dpkg::Options::=--force-confold \
  -o Dpkg::Use-Pty=0 install --no-install-recommends -- "$@"
"""
MAY_INSTALL = 'command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]'


def programs_missing(site: Site) -> tuple[str, ...]:
    """Return the programs that the host lacks.

    Raises:
        Invalid: An engine is there and does not answer, or nobody asked for an installation.
    """
    missing = _missing(site)
    if missing and not site.wish.install:
        raise Invalid(
            f"{site.host.name} has no {', '.join(missing)}",
            where=site.host.name,
            next_step="the same again with --install, or install it there by hand",
        )
    if missing and not site.host.run(script(MAY_INSTALL)).ok:
        names = " ".join(packages.to_install(missing, {}))
        raise Invalid(
            f"{site.host.name} has no {', '.join(missing)}",
            where=site.host.name,
            why="only root installs what is missing, and only with apt-get",
            next_step=f"as root there: apt-get install {names}; then the same again",
        )
    return (f"install {', '.join(missing)}",) if missing else ()


def _missing(site: Site) -> tuple[str, ...]:
    host, settings = site.host, site.session.settings
    tools = (*machine.TOOLS, *(OVER_SSH if site.server else ()))
    tools += ("age",) if settings.database.encrypt_to else ()
    seen = host.ask(machine.look(site.layout.root, host.python, tools))
    lines = [line.partition(" ") for line in seen.splitlines()]
    missing = [value for key, _, value in lines if key == "missing"]
    bad = {item.name: item for item in stopping(machine.programs(seen, host.name))}
    missing += [name for name in ("python", "compose") if name in bad]
    if "docker" in missing:
        missing += ["compose"]
    elif "engine" in bad:
        found = bad["engine"]
        raise Invalid(found.what, where=host.name, next_step=found.cure)
    # Only the daily backup needs it, which says so itself when nobody asked for an installation.
    scheduled = scheduling.wanted(settings) and site.wish.install
    if scheduled and not scheduling.possible(host, settings):
        missing.append("crontab")
    return tuple(missing)


def install_programs(site: Site) -> None:
    """Install them from the host's own packages.

    Raises:
        Invalid: No package brings one of them.
        DeployFailed: The installation failed.
    """
    host, missing = site.host, _missing(site)
    _apt(site, REFRESH, 480)
    policy = host.ask(command("apt-cache", "policy", *packages.asked_about(missing)))
    candidates = packages.parse_candidates(policy)
    if "compose" in missing and not packages.pick("compose", candidates):
        raise Invalid(
            f"No package of {host.name} brings Docker Compose v2",
            where=host.name,
            next_step=f"install it from Docker's own: {BY_HAND}; then the same again",
        )
    _apt(site, INSTALL, 900, *packages.to_install(missing, candidates))
    health.await_engine(host)


def _apt(site: Site, text: str, deadline: float, *names: str) -> None:
    done = site.host.run(script(text, *names, deadline=deadline), site.session.log.show)
    if not done.ok:
        raise DeployFailed(
            "The packages could not be installed",
            where=site.host.name,
            why=done.tail(5),
            next_step="apt-get update there says more; then the same again",
        )


def _allowed(site: Site) -> dict[str, int]:
    layout = site.layout
    keeps = site.server or site.host.run(command("test", "-d", layout.keys)).ok
    return layout.modes | ({layout.keys: 0o700} if keeps else {})


def folders_missing(site: Site) -> tuple[str, ...]:
    """Return the folders that are to be made, or closed to others.

    Raises:
        Invalid: We may not.
    """
    allowed, root = _allowed(site), site.layout.root
    user, there = places.look(site.host, allowed)
    found = places.findings(user, there.values(), allowed)
    stops = list(stopping(found))
    if not there and not places.can_make(site.host, root):
        stops.append(places.not_to_be_made(root, user))
    for item in stops:
        raise Invalid(item.what, where=site.host.name, next_step=item.cure)
    made = [path for path in allowed if path not in there]
    made = [f"{root} and its folders"] if root in made else made
    closed = [path for path, item in there.items() if item.beyond(allowed[path])]
    return (
        *([f"make {', '.join(made)}"] if made else []),
        *([f"close {', '.join(closed)} to others"] if closed else []),
    )


def make_folders(site: Site) -> None:
    """Make them, and close those that are open."""
    allowed = _allowed(site)
    _, there = places.look(site.host, allowed)
    modes = {
        path: there[path].mode & most if path in there else most
        for path, most in allowed.items()
        if path not in there or there[path].beyond(most)
    }
    site.host.ask(places.make(modes))


def environment_missing(site: Site) -> tuple[str, ...]:
    """Return what is to be done to the application's environment."""
    path = site.layout.env_file
    if rights := hosts.rights(site.host, path):
        return (f"close {path} to others",) if rights.open else ()
    example = parse_env(_example(site))
    made_up = [name for name, value in example.items() if value == GENERATE]
    new = f", with new values for {', '.join(made_up)}" if made_up else ""
    return (f"make {path}{new}",) if example else ()


def make_environment(site: Site) -> None:
    """Make it from the example; one that is there keeps every word."""
    path, settings = site.layout.env_file, site.session.settings
    if not site.host.run(command("test", "-e", path)).ok:
        complete = services.completed(parse_env(_example(site)), {}, settings)
        hosts.create(site.host, path, write_env(complete))
    site.host.ask(command("chmod", "--", "0600", path))


def _example(site: Site) -> str:
    path = site.session.folder / site.session.settings.deploy.env_example
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def timer_missing(site: Site) -> tuple[str, ...]:
    """Return what the host is to be told of the daily backup.

    Raises:
        Invalid: Nothing there can be told, and nothing that can is to be installed.
    """
    settings = site.session.settings
    if not scheduling.wanted(settings) or scheduling.up_to_date(site.session):
        return ()
    brought = site.wish.install and not scheduling.possible(site.host, settings)
    if not brought and (error := scheduling.hindrance(site.host, settings)):
        raise error
    return (f"take a backup each day at {settings.database.schedule} UTC",)


def set_timer(site: Site) -> None:
    """Tell it."""
    scheduling.install(site.session, "")
