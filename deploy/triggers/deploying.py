"""Start a deployment as long as something is to be deployed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy import terminal
from deploy.triggers import queue

AGAIN = 30.0  # seconds until a deployment is tried again whose process was killed


async def keep(folder: Path, argv: Sequence[str], called: asyncio.Event) -> None:
    """Start the command as long as something is to be deployed.

    It is a process of its own, in a session of its own, and goes on when we end.
    """
    while argv:
        called.clear()
        before = queue.wanted(folder)
        if before is None:
            await called.wait()
            continue
        process = _start(argv)
        await _ended(process.pid)
        if queue.wanted(folder) == before:  # it was killed
            terminal.err(f"the deployment ended with {process.wait()}, and is tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(called.wait(), AGAIN)


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)


async def _ended(pid: int) -> None:
    """Wait for a child without a thread, which would keep us from ending before it."""
    handle, there = os.pidfd_open(pid), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
