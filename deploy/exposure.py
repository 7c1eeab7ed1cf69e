"""Where secrets are that should not be: in git, and in files that others may read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deploy import git, leaks
from deploy import host as hosts
from deploy.command import Command, script
from deploy.dotenv import parse_env
from deploy.host import Host
from deploy.journal import bookkeeping
from deploy.outcome import Exposed, Failure
from deploy.redact import secret_values
from deploy.session import Session, given_secrets

ENV = ".env"
DEADLINE = 600.0  # seconds for a long history
PLAIN = ("--unified=0", "--no-color", "--no-ext-diff", "--no-textconv")
HISTORY = ("log", "--all", "--cc", "--patch", *PLAIN)  # of a merge, what neither side had
NOW = ("diff", "HEAD", *PLAIN)
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
        Unreachable: The host cannot be asked.
    """
    values = _values(session)
    lines = 0
    found: list[Finding] = []
    if session.here.run(git.git(str(session.folder), "rev-parse", "--verify", "HEAD")).ok:
        lines = _committed(session, values, found)
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
    return {"findings": [], "values": len(values), "lines": lines}


def as_text(found: Mapping[str, Any]) -> str:
    """Return in words that nothing was found."""
    return (
        f"✓ no secret is committed ({found['lines']} lines of git, {found['values']} values in use)"
        "\n✓ nobody else may read the files that hold them"
    )


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
    folder, examples = str(session.folder), session.settings.secrets.examples
    count = 0

    def counted(lines: Iterator[leaks.Line]) -> Iterator[leaks.Line]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    def everything() -> Iterator[leaks.Line]:
        yield from leaks.added(_lines(session.here, git.git(folder, *NOW, deadline=DEADLINE)))
        yield from leaks.added(_lines(session.here, git.git(folder, *HISTORY, deadline=DEADLINE)))

    for leak in leaks.found_in(counted(everything()), values, examples):
        where = f"{leak.path} ({leak.commit})"
        found.append(Finding(where, f"{leak.what} stands there", COMMITTED))
    names = session.here.ask(git.git(folder, "ls-files", "-z")).split("\0")
    for name in leaks.secret_files(names):
        if not name.startswith(tuple(examples)):
            cure = f"git rm --cached {name}, and name it in .gitignore"
            found.append(Finding(name, "git keeps a file that holds secrets by its name", cure))
    return count


def _lines(host: Host, what: Command) -> Iterator[str]:
    """Return the lines of a command's output, as they come; none of them is logged."""
    process, rest = host.start(what), b""
    try:
        process.end_input()
        while chunk := process.read():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
        yield rest.decode(errors="replace")
    finally:
        process.stop()


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
