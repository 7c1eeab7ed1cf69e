"""Our side: bring the library and the plan to the host, and have systemd or cron start it."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from deploy import host as hosts
from deploy.command import command, script
from deploy.host import Host
from deploy.library import bundle
from deploy.library import install as unpack
from deploy.outcome import Invalid
from deploy.schedule import cron, systemd
from deploy.schedule.job import PATH, Job
from deploy.session import Session
from deploy.settings import Settings
from deploy.steps import prepare

RUNNING = "/run/systemd/system"  # is there when systemd is what runs the host
# Only root may tell systemd; what root has told it, another user must not do twice.
WAYS = """
if [ "$(id -u)" != 0 ]; then
  [ ! -e "$2/$3.timer" ] || echo "root's"
elif [ -d "$1" ] && command -v systemctl >/dev/null; then
  echo systemd
fi
command -v crontab >/dev/null && echo cron || true
"""
PYTHON = """
PATH=$1
command -v docker >/dev/null || exit 0
for name in python3 "$2"; do
  found=$(command -v -- "$name") || continue
  case $found in *[!A-Za-z0-9_./+-]*) continue ;; esac
  if "$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then echo "$found"; break; fi
done
"""
FOLDER = """
[ -d "$1" ] || mkdir -p -m 0755 -- "$1"
[ -d "$2" ] || mkdir -m 0700 -- "$2"
"""
TIDY = """
cd -- "$1"
find . -mindepth 1 -maxdepth 1 ! -name "$2" ! -name "$3" -exec rm -rf -- {} +
"""
PLAN = "plan.json"


def install(session: Session, at: str) -> str:
    """Have the host take a backup each day by itself.

    Args:
        session: The session.
        at: The time of day, `HH:MM` in UTC; empty for what invoke.yaml says.

    Raises:
        Invalid: No time is set, or the host lacks what it takes; nothing was changed.
    """
    host, settings = session.target, scheduled(session.settings, at)
    prepare.preflight(session.run("backup", host))
    name, found = name_of(settings), bundle()
    ways = _ways(host, name)
    if not ways:
        raise _none(host)
    way, *others = ways
    folder = session.layout.schedule
    job = Job(
        name=name,
        at=settings.database.schedule,
        python=python_of(host),
        library=f"{folder}/{found.name}",
        plan=f"{folder}/{PLAN}",
    )
    _make(host, session.layout.root, folder)
    changed = False
    if not host.run(command("test", "-d", job.library)).ok:
        host.ask(unpack(found, folder))
        changed = True
    plan = plan_of(host, settings)
    if hosts.read(host, job.plan) != plan:
        hosts.replace(host, job.plan, plan.encode())
        changed = True
    changed |= way.put(host, job)
    for other in others:
        changed |= other.remove(host, name)
    host.ask(script(TIDY, folder, found.name, PLAN))
    said = f"a backup each day at {job.at} UTC, {way.told(job)}"
    return said if changed else f"nothing to do: {said}"


def remove(session: Session) -> str:
    """Have the host take no more backups by itself; those that are there stay."""
    host, name = session.target, name_of(session.settings)
    folder = session.layout.schedule
    removed = host.run(command("test", "-e", folder)).ok
    for way in _ways(host, name):
        removed |= way.remove(host, name)
    host.ask(command("rm", "-r", "-f", "--", folder))
    return "no more backups by itself" if removed else "nothing to do: there was no schedule"


def scheduled(settings: Settings, at: str) -> Settings:
    """Return the settings with the time of day that was typed, if one was.

    Raises:
        Invalid: It is none, or there is nothing to back up, or no time at all.
    """
    database = settings.database
    if at:
        try:
            database = type(database).model_validate({**database.model_dump(), "schedule": at})
        except ValueError as error:
            raise Invalid(
                f"--at must be a time of day in UTC such as 03:30, not {at[:40]!r}", where="--at"
            ) from error
    if not (database.service or database.client_image):
        raise Invalid(
            "There is no database to back up",
            next_step="set database.service or database.client_image in invoke.yaml",
        )
    if not database.schedule:
        raise Invalid(
            "No time is set for a backup each day",
            where="database.schedule",
            next_step="set it in invoke.yaml, or: inv backup.schedule --at 03:30",
        )
    return settings.model_copy(update={"database": database})


def wanted(settings: Settings) -> bool:
    """Tell whether the host is to take backups by itself."""
    database = settings.database
    return bool((database.service or database.client_image) and database.schedule)


def standing(host: Host, settings: Settings) -> str:
    """Return who starts the backups on a host, empty for nobody."""
    known = {"systemd": systemd, "cron": cron}
    name = name_of(settings)
    return next((by for by, way in known.items() if way.there(host, name)), "")


def told(session: Session) -> bool:
    """Tell whether the host goes by these settings; the time of day may be another."""
    text = hosts.read(session.target, f"{session.layout.schedule}/{PLAN}")
    try:
        there = json.loads(text)["settings"]
        there["database"].pop("schedule")
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    here = _plain(session.settings)
    here["database"].pop("schedule")
    return bool(there == here)


def possible(host: Host, settings: Settings) -> bool:
    """Tell whether something on a host could start the backups, or does so already."""
    said = host.ask(script(WAYS, RUNNING, systemd.UNITS, name_of(settings))).split()
    return bool(said)


def hindrance(host: Host, settings: Settings) -> Invalid | None:
    """Return why nothing on a host can be told to start the backups, None when something can."""
    try:
        ways = _ways(host, name_of(settings))
    except Invalid as error:
        return error
    return None if ways else _none(host)


def up_to_date(session: Session) -> bool:
    """Tell whether the host takes backups by itself, by just these settings and this library."""
    host, folder = session.target, session.layout.schedule
    there = host.run(command("test", "-d", f"{folder}/{bundle().name}")).ok
    same = hosts.read(host, f"{folder}/{PLAN}") == plan_of(host, session.settings)
    return there and same and bool(standing(host, session.settings))


def name_of(settings: Settings) -> str:
    """Return what the job of a project is called."""
    return f"{settings.deploy.project}-backup"


def plan_of(host: Host, settings: Settings) -> str:
    """Return what the host needs to know to take a backup; secrets are not among it."""
    plain = _plain(settings)
    return json.dumps({"host": host.name, "settings": plain}, ensure_ascii=False) + "\n"


def _plain(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"environment"})


def _ways(host: Host, name: str) -> list[ModuleType]:
    said = host.ask(script(WAYS, RUNNING, systemd.UNITS, name)).split()
    if "root's" in said:
        raise Invalid(
            f"{name}.timer was made by root, so that only root can change it",
            where=f"{host.name}:{systemd.UNITS}",
            next_step="inv backup.schedule, as root there",
        )
    known = {"systemd": systemd, "cron": cron}
    return [known[word] for word in said]


def _none(host: Host) -> Invalid:
    return Invalid(
        "Nothing on the host starts a command each day",
        where=host.name,
        why="it has no cron, and systemd does not run there or does not obey this user",
        next_step="inv setup --install, as root there, brings cron; by hand: apt-get install cron;"
        " or connect as root where systemd runs",
    )


def python_of(host: Host) -> str:
    """Return a Python by its path, where the host finds it and Docker by itself.

    Raises:
        Invalid: One of them is not there.
    """
    found = host.ask(script(PYTHON, PATH, host.python)).strip()
    if not found:
        raise Invalid(
            "Docker or a Python of 3.11 or newer is not where the host would find it by itself",
            where=host.name,
            why=f"they are looked for in {PATH}",
            next_step="link both into /usr/local/bin",
        )
    return found


def _make(host: Host, root: str, folder: str) -> None:
    made = host.run(script(FOLDER, root, folder))
    if not made.ok:
        raise Invalid(
            "The folder for the schedule cannot be made",
            where=f"{host.name}:{folder}",
            why=made.tail(3),
            next_step=f"make {root} writable for this user, or set deploy.root",
        )
