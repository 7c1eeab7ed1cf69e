"""The code: which commit is meant, and a clean export of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy import refs
from deploy.command import Command, command
from deploy.host import Host, transfer
from deploy.host.process import CommandFailed
from deploy.outcome import DeployFailed, Failure, Invalid

SHA = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")

# Hooks export GIT_DIR and its kin; a password prompt would hang.
CLEAN = (
    "env",
    "-u",
    "GIT_DIR",
    "-u",
    "GIT_WORK_TREE",
    "-u",
    "GIT_INDEX_FILE",
    "GIT_TERMINAL_PROMPT=0",
    "git",
)
FULL = "No space left on device"


@dataclass(frozen=True)
class Source:
    """A commit, what was asked for, and the repository that it is in."""

    sha: str
    ref: str
    dirty: tuple[str, ...] = ()
    repository: str = ""

    @property
    def short(self) -> str:
        """Return the short commit."""
        return self.sha[:7]


@dataclass(frozen=True)
class Parted:
    """How a commit differs from another.

    Args:
        newest: The newest commits that only it has, a line each.
        more: How many beside these.
        lost: How many only the other has.
    """

    newest: tuple[str, ...]
    more: int
    lost: int


def git(folder: str, *words: str, deadline: float = 60) -> Command:
    """Return a git command on a folder, free of what a hook leaves in the environment."""
    return command(*CLEAN, "-C", folder, *words, deadline=deadline)


def resolve(host: Host, folder: str, names: tuple[str, ...]) -> str | None:
    """Return the commit that the first of these names stands for, or None."""
    for name in names:
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        result = host.run(git(folder, *words))
        sha = result.out.strip()
        if result.ok and SHA.match(sha):
            return sha
    return None


def from_checkout(host: Host, folder: str, ref: str) -> Source:
    """Return the commit that a ref means in the developer's checkout.

    Without a ref it is the one checked out. A named branch that its remote has moved
    ahead is fast-forwarded; one that has parted from its remote is refused.

    Raises:
        Invalid: The folder is no checkout, the ref is unknown or has parted.
    """
    if not host.run(git(folder, "rev-parse", "--git-dir")).ok:
        raise Invalid("This is no git checkout", where=folder, next_step="git clone the project")
    sha = resolve(host, folder, (refs.checked(ref) if ref else "HEAD",))
    here = refs.split(ref)[0] in ("", "HEAD")  # origin's HEAD is another thing
    remote = None if here else _fetched(host, folder, ref)
    if sha is None and remote is None:
        raise _unknown(ref or "HEAD", folder)
    sha = _newer(host, folder, ref, sha, remote)
    changes = host.run(git(folder, "status", "--porcelain", "--untracked-files=no"))
    branch = host.run(git(folder, "rev-parse", "--abbrev-ref", "HEAD")).out.strip()
    return Source(sha, ref or branch or "HEAD", tuple(changes.out.splitlines()), folder)


def from_pushed(host: Host, folder: str, branch: str) -> Source:
    """Return the commit that a branch is at in a repository on the host that people push to.

    Raises:
        Invalid: It has no such branch.
    """
    sha = resolve(host, folder, (f"refs/heads/{refs.checked(branch)}",))
    if sha is None:
        raise _unknown(branch, f"{host.name}:{folder}")
    return Source(sha, branch, repository=folder)


def _fetched(host: Host, folder: str, ref: str) -> str | None:
    if not host.run(git(folder, "remote", "get-url", "origin")).ok:
        return None
    if not host.run(git(folder, "fetch", "--quiet", "--tags", "origin", deadline=120)).ok:
        host.log.say("warning: origin cannot be fetched; going by what this checkout knows")
    return resolve(host, folder, (f"refs/remotes/origin/{ref}",))


def _newer(host: Host, folder: str, ref: str, local: str | None, remote: str | None) -> str:
    if local is None or remote is None or local == remote:
        return str(local or remote)

    def inside(old: str, new: str) -> bool:
        return host.run(git(folder, "merge-base", "--is-ancestor", old, new)).ok

    if inside(local, remote):
        return remote
    if inside(remote, local):
        return local
    raise Invalid(
        f"{ref} and origin/{ref} have parted",
        where=folder,
        next_step=f"git pull --rebase, or name a commit: --ref {local[:12]}",
    )


def parted(host: Host, source: Source, other: str, most: int = 10) -> Parted | None:
    """Return how a commit differs from another, None when the repository has one of them not.

    Args:
        host: Where the repository is.
        source: The commit.
        other: The other one.
        most: How many commits are named.
    """
    span = f"{other}...{source.sha}"
    counted = host.run(git(source.repository, "rev-list", "--left-right", "--count", span, "--"))
    words = ("log", "--no-show-signature", f"--max-count={most}", "--format=%h %s")
    named = host.run(git(source.repository, *words, f"{other}..{source.sha}", "--"))
    counts = counted.out.split()
    if not (counted.ok and named.ok and len(counts) == 2):
        return None
    newest = tuple(named.out.splitlines())
    return Parted(newest, int(counts[1]) - len(newest), int(counts[0]))


def export(source_host: Host, repository: str, sha: str, sink: Host, folder: str) -> None:
    """Write a clean export of a commit into a folder, on the same host or another.

    Raises:
        Failure: Either end failed; what was written so far is still there.
    """
    archive = git(repository, "archive", "--format=tar", sha, deadline=300)
    # In other languages tar says in other words that the disk is full.
    tar = ("env", "LC_ALL=C", "tar", "-x", "-f", "-", "-C", folder)
    try:
        sink.ask(command("env", "LC_ALL=C", "mkdir", "-p", "-m", "0700", "--", folder))
        transfer(source_host, archive, sink, command(*tar, stdin=b"", deadline=300))
    except CommandFailed as error:
        if FULL in error.why:
            raise disk_full(sink, folder) from error
        raise


def disk_full(host: Host, folder: str) -> DeployFailed:
    """Return the failure of a host on which nothing more can be written."""
    return DeployFailed(
        f"The disk of {host.name} is full",
        where=f"{host.name}:{folder}",
        next_step="df -h; docker system df; make room, then deploy again",
    )


def _unknown(ref: str, where: str) -> Failure:
    return Invalid(
        f"There is no branch, tag or commit {ref!r}",
        where=where,
        next_step="git branch --all; git tag",
    )
