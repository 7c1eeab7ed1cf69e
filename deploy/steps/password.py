"""Another password for the database, while the release that knows the old one still serves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import quote

from deploy import host as hosts
from deploy import traffic
from deploy.dotenv import parse_env, write_env
from deploy.journal import bookkeeping
from deploy.outcome import DataFailed, DeployFailed, Failure
from deploy.pipeline import Done
from deploy.postgres import access, address, scram
from deploy.releases import Release
from deploy.run import Run

SALT = 16  # bytes


def change(run: Run) -> Done:
    """Give the database the password that stands in the environment of the new release."""
    return _give(run, environment(run, run.release))


def change_back(run: Run) -> None:
    """Give it the one again that the live release knows."""
    if run.previous:
        _give(run, environment(run, run.previous))


def _give(run: Run, variables: Mapping[str, str]) -> Done:
    try:
        container = access.container(run.target, run.settings)
    except DataFailed as error:
        raise DeployFailed(error.what, where=error.where, why=error.why) from error
    if not container:
        raise DeployFailed("No database container runs", where=run.target.name)
    role, password = login(variables)
    salt = secrets.token_bytes(SALT)
    # Unlogged: what the server keeps of a password is enough to guess a weak one.
    bookkeeping(run.target).ask(scram.change(container, role, password, salt))
    return Done(f"role {role}")


def environment(run: Run, release: Release) -> dict[str, str]:
    """Return the environment of a release."""
    path = run.layout.place(release.id, release.tag).env_file
    return parse_env(hosts.read(bookkeeping(run.target), path), path)


def login(variables: Mapping[str, str]) -> tuple[str, str]:
    """Given an environment, return the role and the password that it opens the database with."""
    said = address.parameters(variables.get("DATABASE_URL", ""))
    return said["user"], said["password"]


def renewed(variables: Mapping[str, str], old: str, new: str) -> dict[str, str]:
    """Given an environment, return it with a new password wherever the old one stood.

    Args:
        variables: The environment.
        old: The password to replace, by itself or in an address.
        new: What replaces it, of characters that need no quoting in an address.
    """
    if not old:
        return dict(variables)
    forms = dict.fromkeys((quote(old, safe=""), quote(old), old))
    found = {}
    for name, value in variables.items():
        if value == old:
            found[name] = new
            continue
        text = value
        for form in forms if "://" in value else ():
            text = text.replace(f":{form}@", f":{new}@")
        found[name] = text
    return found


def forget(run: Run) -> Done:
    """Give the releases that are kept the new password, in the place of the old one.

    Their containers hold the old one, and go: a rollback makes new ones from the image.
    """
    new = login(environment(run, run.release))[1]
    told = 0
    for item in run.releases:
        if item.id == run.release.id:
            continue
        try:
            told += _tell(run, item, new)
        except Failure as error:
            run.warn(f"{item.id} does not know the new password: {error.as_text()}")
    return Done(f"{told} kept releases know it")


def _tell(run: Run, release: Release, new: str) -> int:
    variables = environment(run, release)
    if not variables.get("DATABASE_URL"):
        return 0
    data = write_env(renewed(variables, login(variables)[1], new))
    path = run.layout.place(release.id, release.tag).env_file
    hosts.replace(bookkeeping(run.target), path, data)
    traffic.remove(run.target, run.settings, release)
    return 1
