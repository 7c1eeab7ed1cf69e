"""A clone of this checkout that deploys to the box: what the demo and the sweep work in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.outcome import DeployFailed
from sandbox.box import Box
from sandbox.shell import must

DEADLINE = 1200
AUTHOR = ("-c", "user.name=demo", "-c", "user.email=demo@localhost")


def clone(root: Path, box: Box, name: str) -> Path:
    """Clone a checkout's HEAD into the box's folder, so that its `vps` is that box."""
    target = box.directory / name
    again = f"./bootstrap {name}"
    if target.exists():
        shutil.rmtree(target)
    must(("git", "clone", "--quiet", "--", str(root), str(target)), deadline=60, next_step=again)
    must(("git", "-C", str(target), "remote", "remove", "origin"), deadline=10, next_step=again)
    (target / ".sandbox").symlink_to(box.directory)
    return target


def commit(clone: Path, name: str, addition: str, message: str) -> None:
    """Add to a file, and commit all there is."""
    path = clone / name
    path.write_text(path.read_text() + addition)
    git = ("git", "-C", str(clone), *AUTHOR)
    words = ("commit", "--quiet", "--all", "--allow-empty", "--message", message)
    must((*git, *words), deadline=30, next_step="./bootstrap demo")


def configure(clone: Path, change: Mapping[str, str], name: str = "invoke.yaml") -> None:
    """Replace lines of a clone's file, each of which must be there."""
    path = clone / name
    text = path.read_text()
    for old, new in change.items():
        if old not in text:
            raise DeployFailed(f"{name} has no line {old.strip()!r}", where=str(path))
        text = text.replace(old, new)
    path.write_text(text)


def inv(clone: Path, *words: str, **env: str) -> int:
    """Type `inv ... --host vps` in a clone and let everybody see it; return the exit code.

    Args:
        clone: Where.
        words: The verb and what follows it.
        env: Variables that it gets besides ours.
    """
    argv = (sys.executable, "-m", "invoke", *words, "--host", "vps")
    done = subprocess.run(
        argv,
        cwd=clone,
        timeout=DEADLINE,
        check=False,
        stdout=sys.stderr,
        env={**os.environ, **env},
    )
    return done.returncode


def document(clone: Path, *words: str) -> Any:
    """Type `inv ... --host vps --json` in a clone and read what it prints."""
    argv = (sys.executable, "-m", "invoke", *words, "--host", "vps", "--json")
    answer = must(argv, deadline=60, cwd=clone, next_step="inv status --host vps")
    return json.loads(answer)
