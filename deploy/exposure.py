"""Where secrets are that should not be: in git, and in files that others may read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy import git, leaks
from deploy import host as hosts
from deploy.command import script
from deploy.dotenv import parse_env
from deploy.host import Host
from deploy.host.process import CommandFailed
from deploy.journal import bookkeeping
from deploy.outcome import Exposed, Failure, Invalid
from deploy.redact import secret_values
from deploy.session import Session, given_secrets

ENV = ".env"
DEADLINE = 600.0  # seconds for a long history
# As text also what .gitattributes would have git not show.
PLAIN = ("--unified=0", "--no-color", "--no-ext-diff", "--no-textconv", "--text")
# Of a merge, what neither side had.
HISTORY = ("log", "--all", "--cc", "--patch", "--pretty=medium", "--no-show-signature", *PLAIN)
NOW = ("diff", *PLAIN)
NEW = ("ls-files", "--others", "--exclude-standard", "-z")
UNTRACKED = "not in git yet"
# Whose mode lets others read them, or who are neither ours nor of whom the folder is: mode, owner,
# path, a line each. What is in git stands in `source`; the application writes its logs to `app`.
OPEN = r"""
for path in "$@"; do
  if [ -e "$path" ]; then
    owner=$(stat -c %u -- "${path%/*}")
    find "$path" \( -name source -o -name app \) -prune -o -type f \
      \( -perm /077 -o ! -user "$(id -un)" ! -user "$owner" \) -printf '%m %u %p\n'
  fi
done
"""
HERE = (ENV, ".sandbox/key", ".sandbox/host_key", "backups")
COMMITTED = (
    "whoever has the repository has it: have a new one issued, take it out of the file, and out of"
    " the history with git filter-repo; a made-up one belongs below a folder of secrets.examples"
)
WRITTEN = (
    "whoever has the repository has it: have a new one issued, and take it out of the message with"
    " git filter-repo --replace-message"
)
NOT_YET = "the next git add takes it along: take it out of the file, or name that in .gitignore"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        where: A file, and the commit or the host that it is in.
        what: What is wrong with it; never the secret.
        cure: What to type, or to do.
    """

    where: str
    what: str
    cure: str


def check(session: Session) -> dict[str, Any]:
    """Look for committed secrets, and for files with secrets that others may read.

    Returns:
        What was looked at.

    Raises:
        Exposed: Something was found; each with its cure.
        Invalid: What git keeps cannot be searched.
        Unreachable: The host cannot be asked.
    """
    values = _values(session)
    lines = 0
    found: list[Finding] = []
    kept = _has_repository(session.folder)
    if kept:
        try:
            lines = _committed(session, values, found)
        except (CommandFailed, OSError) as error:
            raise _not_searched(str(session.folder), error) from error
    found += _readable(session.here, str(session.folder), HERE)
    layout = session.layout
    secret = layout.webhook_secret.removeprefix(f"{layout.root}/")
    there = (ENV, "ssh", "releases", "backups", "journal", "records", "logs", secret)
    if session.target is not session.here or layout.root != str(session.folder):
        found += _readable(session.target, layout.root, there)
    if found:
        raise Exposed(
            f"{len(found)} secrets are where others may read them",
            where=session.target.name,
            why="\n".join(f"{item.where}: {item.what}; {item.cure}" for item in found),
            next_step="put each right, then: inv secrets.check",
            findings=[asdict(item) for item in found],
        )
    return {"findings": [], "values": len(values), "lines": lines, "git": kept}


def as_text(found: Mapping[str, Any]) -> str:
    """Return in words that nothing was found."""
    looked = f"{found['lines']} lines of git, {found['values']} values in use"
    git_told = f"✓ no secret is committed ({looked})"
    if not found["git"]:
        git_told = "- this is no git repository: nothing is committed, and nothing was searched"
    return f"{git_told}\n✓ nobody else may read the files that hold them"


def _has_repository(folder: Path) -> bool:
    # Of one that it may not or cannot read git says the same as of none.
    return any((place / ".git").exists() for place in (folder, *folder.parents))


def _not_searched(folder: str, error: CommandFailed | OSError) -> Invalid:
    why = f"{error.what}\n{error.why}".strip() if isinstance(error, CommandFailed) else str(error)
    if "safe.directory" in why:
        cure = f"as the owner of {folder}, or: git config --global --add safe.directory {folder}"
    elif "did not end within" in why:
        cure = f"git -C {folder} gc makes the history quicker to read; then: inv secrets.check"
    else:
        cure = f"git -C {folder} fsck --full says what is broken; then: inv secrets.check"
    what = "Whether a secret is committed is unknown: git could not be searched"
    return Invalid(what, where=folder, why=why, next_step=cure)


def _values(session: Session) -> dict[str, str]:
    """Return the secrets in use, and what each is called: here, and on the host."""
    texts = {
        f"{ENV} here": _read(session.here, f"{session.folder}/{ENV}"),
        f"{ENV} of {session.target.name}": _read(session.target, session.layout.env_file),
    }
    sources = {name: parse_env(text, name) for name, text in texts.items()}
    proof = _read(session.target, session.layout.webhook_secret)
    sources["the listener's queue"] = {"LISTEN_SECRET": proof.strip()}
    sources["the environment"] = given_secrets(session.settings)
    found: dict[str, str] = {}
    for source, variables in sources.items():
        for name, value in variables.items():
            for secret in secret_values({name: value}):
                if secret:
                    found.setdefault(secret, f"{name} in {source}")
    session.log.learn(tuple(found))
    return found


def _read(host: Host, path: str) -> str:
    try:
        return hosts.read(bookkeeping(host), path)
    except Failure:  # of another user's the permissions are told
        return ""


def _committed(session: Session, values: Mapping[str, str], found: list[Finding]) -> int:
    here, folder, examples = session.here, str(session.folder), session.settings.secrets.examples
    count = 0
    born = here.run(git.git(folder, "rev-parse", "--verify", "--quiet", "HEAD")).ok
    empty = ("hash-object", "-t", "tree", "/dev/null")
    base = "HEAD" if born else here.ask(git.git(folder, *empty)).strip()
    new = here.ask(git.git(folder, *NEW)).split("\0")

    def counted(lines: Iterator[leaks.Line]) -> Iterator[leaks.Line]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    def everything() -> Iterator[leaks.Line]:
        now, history = git.git(folder, *NOW, base), git.git(folder, *HISTORY, deadline=DEADLINE)
        yield from leaks.added(here.lines(now))
        yield from leaks.added(here.lines(history))
        yield from _untracked(session.folder, new)

    for leak in leaks.found_in(counted(everything()), values, examples):
        where = f"{leak.path} ({leak.commit})"
        cure = NOT_YET if leak.commit == UNTRACKED else COMMITTED
        cure = WRITTEN if leak.path == leaks.MESSAGE else cure
        found.append(Finding(where, f"{leak.what} stands there", cure))
    names = here.ask(git.git(folder, "ls-files", "-z")).split("\0")
    for name in leaks.secret_files(names):
        if not name.startswith(tuple(examples)):
            cure = f"git rm --cached {name}, and name it in .gitignore"
            found.append(Finding(name, "git keeps a file that holds secrets by its name", cure))
    return count


def _untracked(folder: Path, names: Iterable[str]) -> Iterator[leaks.Line]:
    for name in filter(None, names):
        path = folder / name
        # Of a link, git keeps where it leads, not what is there.
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            for line in file:
                yield leaks.Line(UNTRACKED, name, line.decode(errors="replace").rstrip("\r\n"))


def _readable(host: Host, root: str, names: tuple[str, ...]) -> list[Finding]:
    paths = [f"{root}/{name}" for name in names]
    return [
        Finding(f"{host.name}:{path}", f"mode {mode}, of user {owner}", _closing(host, mode, path))
        for line in bookkeeping(host).ask(script(OPEN, *paths)).splitlines()
        for mode, owner, path in [line.split(" ", 2)]
        if not path.endswith("/.gitkeep")
    ]


def _closing(host: Host, mode: str, path: str) -> str:
    there = "" if host.name == "local" else f"ssh {host.name} "
    whose = f"chown --reference={json.dumps(path.rpartition('/')[0])}"
    act = "chmod 600" if int(mode, 8) & 0o077 else whose
    return f"{there}{act} {json.dumps(path)}"
