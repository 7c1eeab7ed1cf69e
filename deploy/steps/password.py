"""Another password for the database, while the release that knows the old one still serves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import quote

from deploy import host as hosts
from deploy import traffic
from deploy.command import Command
from deploy.dotenv import parse_env, write_env
from deploy.journal import bookkeeping
from deploy.outcome import DataFailed, DeployFailed, Failure
from deploy.pipeline import Done
from deploy.postgres import access, address, scram
from deploy.releases import Release
from deploy.run import Run

SALT = 16  # bytes


def change(run: Run) -> Done:
    """Let the other role in, by the password in the environment of the new release."""
    role, password = login(environment(run, run.release))
    _tell_server(run, scram.open_for(_container(run), role, password, secrets.token_bytes(SALT)))
    return Done(f"role {role}")


def change_back(run: Run) -> None:
    """Let nobody in by the new password; the one that the live release knows was never touched."""
    _tell_server(run, scram.close_for(_container(run), login(environment(run, run.release))[0]))


def _container(run: Run) -> str:
    try:
        found = access.container(run.target, run.settings)
    except DataFailed as error:
        raise DeployFailed(error.what, where=error.where, why=error.why) from error
    if not found:
        raise DeployFailed("No database container runs", where=run.target.name)
    return found


def _tell_server(run: Run, what: Command) -> None:
    # Unlogged: what the server keeps of a password is enough to guess a weak one.
    bookkeeping(run.target).ask(what)


def environment(run: Run, release: Release) -> dict[str, str]:
    """Return the environment of a release."""
    path = run.layout.place(release.id, release.tag).env_file
    return parse_env(hosts.read(bookkeeping(run.target), path), path)


def login(variables: Mapping[str, str]) -> tuple[str, str]:
    """Given an environment, return the role and the password that it opens the database with."""
    said = address.parameters(variables.get("DATABASE_URL", ""))
    return said["user"], said["password"]


def renewed(
    variables: Mapping[str, str], old: tuple[str, str], new: tuple[str, str]
) -> dict[str, str]:
    """Given an environment, return it with another role and password wherever the old ones stood.

    Args:
        variables: The environment.
        old: Role and password to replace, the password also by itself.
        new: What replaces them, of characters that need no quoting in an address.
    """
    role, password = old
    forms = [f"://{role}:{form}@" for form in (quote(password, safe=""), quote(password), password)]
    found = {}
    for name, value in variables.items():
        text = value
        for form in forms:
            text = text.replace(form, f"://{new[0]}:{new[1]}@")
        found[name] = new[1] if value == password else text
    return found


def forget(run: Run) -> Done:
    """Let nobody in by the old password, and give the releases that are kept the new one.

    Their containers hold the old one, and go: a rollback makes new ones from the image.
    """
    new = login(environment(run, run.release))
    for item in run.releases:
        try:
            if item.id != run.release.id:
                _tell_release(run, item, new)
        except Failure as error:
            run.warn(f"{item.id} does not know the new password: {error.as_text()}")
    role = scram.other(new[0])
    try:
        _tell_server(run, scram.close_for(_container(run), role))
    except Failure as error:
        run.warn(f"the old password still opens the database: {error.as_text()}")
        return Done(f"role {role} is still let in", "warned")
    return Done(f"role {role} is let in no more")


def _tell_release(run: Run, release: Release, new: tuple[str, str]) -> None:
    variables = environment(run, release)
    if not variables.get("DATABASE_URL"):
        return
    data = write_env(renewed(variables, login(variables), new))
    path = run.layout.place(release.id, release.tag).env_file
    hosts.replace(bookkeeping(run.target), path, data)
    traffic.remove(run.target, run.settings, release)
