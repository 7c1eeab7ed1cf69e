"""Compose on a host: what it is told, and the names that the services of a release have.

All releases live in one compose project. A release's services carry its id in their
names, so that the new ones start beside the old ones; accessories (databases and the
like) and networks keep their names and are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.command import Command, command

if TYPE_CHECKING:
    from deploy.settings import Settings

PROXY_SERVICE = "deploy-proxy"
# To Compose the releases beside are orphans, which it would have one remove.
ENVIRONMENT = ("env", "COMPOSE_IGNORE_ORPHANS=1")
PROGRAM = ("docker", "compose")


@dataclass(frozen=True)
class Place:
    """Where a release lives on its host, and what it is made of."""

    release: str
    source: str
    env_file: str
    compose_file: str
    image: str


def service_name(service: str, release: str) -> str:
    """Return the name a service of a release has, which is also its address on the network."""
    return f"{service}-{release}".lower()


def logging() -> dict[str, Any]:
    """Return the log rotation that a service gets when it names none."""
    return {"driver": "json-file", "options": {"max-size": "100m", "max-file": "5"}}


def _compose(settings: Settings, place: Place, *words: str, deadline: float) -> Command:
    return command(
        *ENVIRONMENT,
        f"DEPLOY_ROOT={settings.deploy.root}",  # what the file interpolates
        *PROGRAM,
        "--project-name",
        settings.deploy.project,
        "--project-directory",
        place.source,
        "--env-file",
        place.env_file,
        "--file",
        place.compose_file,
        *words,
        deadline=deadline,
    )


def check(settings: Settings, place: Place) -> Command:
    """Have Compose read the rendered file, without showing what it holds."""
    return _compose(settings, place, "config", "--quiet", deadline=30)


def up_accessories(settings: Settings, place: Place, names: Sequence[str]) -> Command:
    """Start accessories that are not there yet, and nothing else that they depend on."""
    words = ("up", "--detach", "--no-deps", "--no-recreate", *names)
    return _compose(settings, place, *words, deadline=300)


def up_proxy(settings: Settings, place: Place) -> Command:
    """Start the front door, anew only when its own definition has changed."""
    return _compose(settings, place, "up", "--detach", "--no-deps", PROXY_SERVICE, deadline=120)


def up_release(settings: Settings, place: Place) -> Command:
    """Start the services of a release beside whatever runs."""
    names = [service_name(name, place.release) for name in settings.app.services]
    return _compose(
        settings, place, "up", "--detach", "--no-deps", "--force-recreate", *names, deadline=180
    )


def up_one(settings: Settings, place: Place, service: str) -> Command:
    """Start one service, and nothing that it depends on."""
    words = ("up", "--detach", "--no-deps", service)
    return _compose(settings, place, *words, deadline=120)


def migration(settings: Settings, place: Place) -> Command:
    """Run the migrations in a throw-away container of the release's image and environment.

    They wait for no lock longer than they may: whoever comes after them would wait as well.
    """
    argv, deadline = settings.migrate.command, settings.migrate.deadline
    service = service_name(settings.app.services[0], place.release)
    options = f"PGOPTIONS=-c lock_timeout={settings.migrate.lock_timeout * 1000:.0f}"
    once = ("run", "--rm", "--no-deps", "--no-TTY", "--env", options, "--entrypoint", argv[0])
    return _compose(settings, place, *once, service, *argv[1:], deadline=deadline)


def accessory_ids(settings: Settings, place: Place) -> Command:
    """Ask for the containers of the accessories."""
    names = settings.app.accessories
    return _compose(settings, place, "ps", "--all", "--quiet", *names, deadline=30)


def test_words(
    project: str, folder: str, file: str, withheld: Sequence[str], *words: str, deadline: float
) -> Command:
    """Return a compose command on the test project of a run.

    Args:
        project: The project.
        folder: The commit's files.
        file: The compose file.
        withheld: The variables of the caller that it must not see.
        words: What Compose shall do.
        deadline: How many seconds that may take.
    """
    unset = (word for name in dict.fromkeys(withheld) for word in ("-u", name))
    # A `.env` of the commit's would tell Compose itself what to do.
    base = (*PROGRAM, "--project-name", project, "--env-file", "/dev/null")
    where = ("--project-directory", folder, "--file", file)
    name, *rest = ENVIRONMENT
    return command(name, *unset, *rest, *base, *where, *words, deadline=deadline)
