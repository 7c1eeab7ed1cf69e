"""Where the sandbox keeps its locks, and how it takes them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.shell import say


def state_folder() -> Path:
    """Return the folder for the lock and the engine's log, outside any checkout."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where HOME is odd
    folder = home / ".cache" / "server-agent-vnext"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"server-agent-vnext-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one run at a time: two would install, build or start the same things.

    Args:
        name: What is being done alone.
    """
    with (state_folder() / f"{name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another one is at work, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
