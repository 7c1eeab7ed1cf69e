"""The code: which commit is meant, and a clean export of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.command import Command, command, script
from deploy.host import Host, transfer
from deploy.outcome import Failure, Invalid

REF = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_./~^@+#=-]{0,199}$")
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
CLONE = """
umask 077
if [ ! -d "$1" ]; then
  git init --quiet --bare -- "$1"
fi
if [ -n "$2" ]; then
  git -C "$1" remote set-url origin "$2" 2>/dev/null || git -C "$1" remote add origin "$2"
fi
git -C "$1" remote get-url origin
"""


@dataclass(frozen=True)
class Source:
    """A commit, and what was asked for."""

    sha: str
    ref: str
    dirty: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """Return the short commit."""
        return self.sha[:7]


def checked(ref: str) -> str:
    """Return a ref that is safe to hand to git, unchanged.

    Raises:
        Invalid: It looks like a flag, a command or no ref at all.
    """
    if not REF.match(ref) or ".." in ref or "@{" in ref:
        raise Invalid(
            f"{ref[:80]!r} is no git ref",
            where="--ref",
            next_step="name a branch, a tag or a commit, for example --ref main",
        )
    return ref


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
    sha = resolve(host, folder, (checked(ref) if ref else "HEAD",))
    remote = _fetched(host, folder, ref) if ref else None
    if sha is None and remote is None:
        raise _unknown(ref or "HEAD", folder)
    sha = _newer(host, folder, ref, sha, remote)
    changes = host.run(git(folder, "status", "--porcelain", "--untracked-files=no"))
    branch = host.run(git(folder, "rev-parse", "--abbrev-ref", "HEAD")).out.strip()
    return Source(sha, ref or branch or "HEAD", tuple(changes.out.splitlines()))


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


def from_remote(host: Host, folder: str, url: str, ref: str, branch: str) -> Source:
    """Fetch the code into a bare clone on the host and return the commit that is meant.

    Args:
        host: Where the clone is.
        folder: The clone; it is made when missing.
        url: Where to fetch from; empty means the remote the clone already has.
        ref: What the user asked for; empty means the branch below.
        branch: The branch that is deployed by default.

    Raises:
        Invalid: There is nothing to fetch from, or the ref is unknown.
    """
    wanted = checked(ref or branch)
    if not host.run(script(CLONE, folder, url)).ok:
        raise Invalid(
            "The host does not know where to fetch the code from",
            where=f"{host.name}:{folder}",
            next_step="set git.url in invoke.yaml",
        )
    specs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    result = host.run(git(folder, "fetch", "--quiet", "--prune", "origin", *specs, deadline=600))
    if not result.ok:
        raise Invalid(
            "The code cannot be fetched",
            where=f"{host.name}:{folder}",
            why=result.tail(),
            next_step="check git.url, and that the host's key may read the repository",
        )
    short = wanted.removeprefix("origin/")
    names = (f"refs/remotes/origin/{short}", f"refs/tags/{short}", wanted)
    sha = resolve(host, folder, names)
    if sha is None:
        raise _unknown(wanted, f"{host.name}:{folder}")
    return Source(sha, wanted)


def export(source_host: Host, repository: str, sha: str, sink: Host, folder: str) -> None:
    """Write a clean export of a commit into a folder, on the same host or another.

    Raises:
        Failure: Either end failed.
    """
    sink.ask(command("mkdir", "-p", "-m", "0700", "--", folder))
    archive = git(repository, "archive", "--format=tar", sha, deadline=300)
    extract = command("tar", "-x", "-f", "-", "-C", folder, stdin=b"", deadline=300)
    transfer(source_host, archive, sink, extract)


def _unknown(ref: str, where: str) -> Failure:
    return Invalid(
        f"There is no branch, tag or commit {ref!r}",
        where=where,
        next_step="git branch --all; git tag",
    )
