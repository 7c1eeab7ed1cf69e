"""This machine, as a host."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from deploy.command import KILL_AFTER, LINK, Command
from deploy.host.process import TIMED_OUT, Host, Process
from deploy.log import RunLog
from deploy.outcome import Invalid

CHUNK = 1 << 16
ENDED = (TIMED_OUT, -signal.SIGKILL)  # what timeout(1) exits with at a deadline


class LocalProcess:
    """A child of this process, in a session of its own so that Ctrl-C reaches only us."""

    def __init__(self, command: Command, link: str) -> None:
        seconds = str(max(1, math.ceil(command.deadline)))
        try:
            self._child = subprocess.Popen(
                ("timeout", "-k", str(KILL_AFTER), seconds, *command.argv),
                stdin=subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, LINK: link},
            )
        except (OSError, ValueError) as error:
            raise Invalid(
                "A command could not be started on this machine", why=str(error)
            ) from error

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input."""
        left = memoryview(data)
        # Not by its stream: that one's lock would be held while nobody reads, and stop() hang.
        try:
            while left and self._child.stdin:
                left = left[os.write(self._child.stdin.fileno(), left) :]
        except ValueError as error:  # it has been stopped, and its input closed
            raise BrokenPipeError(str(error)) from error

    def end_input(self) -> None:
        """Close its standard input."""
        if self._child.stdin:
            self._child.stdin.close()

    def read(self) -> bytes:
        """Return the next bytes of its standard output, empty at the end."""
        return os.read(self._child.stdout.fileno(), CHUNK) if self._child.stdout else b""

    def read_error(self) -> bytes:
        """Return the next bytes of its standard error, empty at the end."""
        return os.read(self._child.stderr.fileno(), CHUNK) if self._child.stderr else b""

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, or None when it still runs after that time."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code  # as a shell says it

    def stop(self) -> None:
        """End it and its children, and close the pipes."""
        if self._child.poll() is None:
            self._signal(signal.SIGTERM)
            self.wait(2.0)
            self._signal(signal.SIGKILL)  # also whoever ignored the first one
            self._child.wait()
        elif self._child.returncode in ENDED:
            self._signal(signal.SIGKILL)
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)


def local_host(log: RunLog) -> Host:
    """Return this machine as a host."""
    link, numbers = secrets.token_hex(8), itertools.count()

    def start(command: Command) -> Process:
        return LocalProcess(command, f"{link}.{next(numbers)}")

    here = str(Path(__file__).resolve().parents[2])
    return Host("local", "localhost", start, lambda: None, log, sys.executable, here)
