"""Checks of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.checks.finding import Finding, good, stop, warning
from deploy.doctor.visit import Check, Visit
from deploy.git import git
from deploy.host import Host
from deploy.session import ssh_files
from deploy.steps import prepare
from deploy.telegram import api

PRIVATE = 0o077  # the bits of a mode that let others in
ASKED = 20.0  # seconds that a remote gets to answer
BOT = 8.0  # seconds that the Bot API gets


def env_file(folder: Path) -> Iterator[Finding]:
    """See that nobody else reads the `.env` of the project."""
    path = folder / ".env"
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        yield good(".env", "there is none; the variables come from the environment")
        return
    if mode & PRIVATE:
        yield warning(".env", f"others may read {path} ({mode:o})", f"chmod 600 {path}")
    else:
        yield good(".env", f"{path} is its owner's alone")


def checkout(here: Host, folder: Path, *, needed: bool) -> Iterator[Finding]:
    """See that the project is a git checkout, and that its remote answers.

    Args:
        here: This machine.
        folder: The project.
        needed: Whether the code that is deployed comes from it.
    """
    if not here.run(git(str(folder), "rev-parse", "--git-dir")).ok:
        problem = stop if needed else warning
        yield problem("git", f"{folder} is no git checkout", "git clone the project")
        return
    branch = here.run(git(str(folder), "rev-parse", "--abbrev-ref", "HEAD")).out.strip()
    yield good("git", f"a checkout, at {branch or 'no commit yet'}")
    if not here.run(git(str(folder), "remote", "get-url", "origin")).ok:
        what = "the checkout has no remote origin: what is committed is on this machine alone"
        yield warning("remote", what, "git remote add origin URL; git push -u origin HEAD")
        return
    answer = here.run(git(str(folder), "ls-remote", "--quiet", "origin", "HEAD", deadline=ASKED))
    if answer.ok:
        yield good("remote", "origin answers")
    else:
        why = answer.tail(1)
        yield warning("remote", f"origin does not answer: {why}", "git ls-remote origin")


def project(visit: Visit) -> Iterator[Finding]:
    """See that the files which invoke.yaml names are there."""
    settings, folder = visit.session.settings, visit.session.folder
    named = {
        "deploy.compose_file": settings.deploy.compose_file,
        "build.dockerfile": settings.build.dockerfile,
        "tests.compose_file": settings.tests.compose_file,
    }
    lost = {key: name for key, name in named.items() if name and not (folder / name).is_file()}
    for key, name in lost.items():
        yield stop("files", f"there is no {name}", f"correct {key} in invoke.yaml")
    if not lost:
        yield good("files", "the files that invoke.yaml names are there")


def engine(visit: Visit) -> Iterator[Finding]:
    """See that this machine can test and build, as preflight does."""
    if visit.builds_here:
        yield from prepare.look_here(visit.run)


def ssh(visit: Visit) -> Iterator[Finding]:
    """See what the SSH configuration says of the host, and that its key is known."""
    session = visit.session
    if session.target is session.here:
        return
    from deploy.host.ssh import peer  # noqa: PLC0415 - slow, and for a remote host alone

    name = session.target.name
    found = peer(name, ssh_files(session.folder))
    yield from _keys(name, found.keys)
    place = f"{found.user}@{found.address}, port {found.port}"
    yield good("ssh", f"{name} is {place}")
    if found.known:
        yield good("host key", f"the key of {name} is known")
    else:
        cure = f"compare its fingerprint, then accept it with: ssh {name} true"
        yield stop("host key", f"no key of {name} is known here", cure)


def _keys(name: str, keys: tuple[Path, ...]) -> Iterator[Finding]:
    for path in keys:
        if not path.is_file():
            cure = f"correct IdentityFile of {name} in the SSH configuration"
            yield warning("ssh", f"there is no key {path}", cure)
        elif path.stat().st_mode & PRIVATE:
            yield warning("ssh", f"others may read the key {path}", f"chmod 600 {path}")


def bot(visit: Visit) -> Iterator[Finding]:
    """See that the Bot API knows the token."""
    environment = visit.session.settings.environment
    if not environment.telegram_token.get_secret_value():
        yield good("bot", "TELEGRAM_API_TOKEN is not set: nobody is told")
        return
    reply = api.call(environment, "getMe", {}, BOT).reply
    if reply.ok:
        known = reply.result if isinstance(reply.result, Mapping) else {}
        yield good("bot", f"the Bot API knows it as @{known.get('username', '')}")
    else:
        cure = "correct TELEGRAM_API_TOKEN (@BotFather tells it) or TELEGRAM_API_BASE"
        yield warning("bot", f"the Bot API does not: {reply.why}", cure)


CHECKS: Mapping[str, Check] = {"files": project, "engine": engine, "ssh": ssh, "bot": bot}
