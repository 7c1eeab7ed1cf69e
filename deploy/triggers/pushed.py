"""What git calls after a push: `python3 -m deploy.triggers.pushed PLAN`, the refs on stdin.

They are in by now, whatever becomes of the deployment. That is a process of its own, which whoever
hangs up cannot reach; we only tell what it says. Runs with nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from deploy import terminal
from deploy.outcome import Failure, Invalid

POLL = 0.1  # seconds between two looks at what the deployment says
CHUNK = 1 << 16
PREFIX = "refs/heads/"
LINE = "=" * 72
KEPT = "What you have pushed is here all the same."


def main(words: list[str]) -> int:
    """Deploy the configured branch, when it is among what was pushed.

    Args:
        words: The plan.

    Returns:
        The exit code that `fab deploy` would have, which git does not look at.
    """
    try:
        plan = plan_in(words[0])
    except Failure as failure:
        sys.stdin.buffer.read()
        terminal.err(f"{LINE}\nNOTHING IS DEPLOYED. {KEPT}\nerror: {failure.as_text()}\n{LINE}")
        return int(failure.code)
    branch = plan["settings"]["git"]["branch"]
    # All of it, and as bytes: a name need not be UTF-8.
    new = wanted(sys.stdin.buffer, branch.encode())
    if new is None:
        terminal.err(f"Nothing is deployed: only {branch} is.")
        return 0
    if not new.strip(b"0"):
        terminal.err(f"Nothing is deployed: {branch} is gone.")
        return 0
    terminal.err(f"Deploying {branch} at {new[:7].decode()}. It goes on when you hang up.")
    code = deploy(words[0])
    if code:
        failed = f"THE DEPLOYMENT FAILED (exit code {code}). {KEPT}"
        terminal.err(f"{LINE}\n{failed}\nThe cause is above; inv history lists the runs.\n{LINE}")
    return code


def plan_in(path: str) -> dict[str, Any]:
    """Return what the host was told to deploy, and how.

    Raises:
        Invalid: The file is not as `setup` has written it.
    """
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
        if plan["host"] and plan["told"] and plan["settings"]["git"]["branch"]:
            return dict(plan)
        why = "something is missing"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
    raise Invalid(
        "What the host was told to deploy cannot be read",
        where=path,
        why=why[:200],
        next_step="inv setup writes it anew",
    )


def wanted(lines: Iterable[bytes], branch: bytes) -> bytes | None:
    """Given the lines that git writes, return the commit that the branch is at now, if it moved.

    Args:
        lines: `OLD NEW REF` each; no ref is anything but a value.
        branch: The branch that is deployed.
    """
    found = None
    for line in lines:
        parts = line.rstrip(b"\n").split(b" ", 2)
        if len(parts) == 3 and parts[2] == PREFIX.encode() + branch:
            found = parts[1]
    return found


def deploy(plan: str) -> int:
    """Have a process of its own deploy, and tell what it says until it ends.

    Args:
        plan: The file with the plan.
    """
    argv = (sys.executable, "-s", "-m", "deploy.triggers.work", "pushed", plan, user())
    # Nobody has to take a file without a name away, and who does not read stops nobody.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            env=clean(os.environ),
        )
        seen = 0
        while True:
            ended = _ended(process)
            seen = tell(said, seen)
            if ended:
                code = process.returncode
                return code if code >= 0 else 128 - code


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what git tells its hooks, which would mislead git itself."""
    return {name: value for name, value in environ.items() if not name.startswith("GIT_")}


def user() -> str:
    """Return who pushes: the host's user, as nobody else is known here."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def tell(said: IO[bytes], seen: int) -> int:
    """Write what was said since; return how many bytes were seen now."""
    while part := os.pread(said.fileno(), CHUNK, seen):
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(part)
            sys.stderr.buffer.flush()
        seen += len(part)
    return seen


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
