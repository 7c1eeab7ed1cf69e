"""The log of a run: every command, its output and its time, redacted as it is written."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import TextIO

from deploy import terminal
from deploy.redact import Redactor


class RunLog:
    """Collects the lines of a run until they are stored on the host; safe for threads.

    Args:
        redactor: Masks every line before anything else sees it.
        screen: Where people read the progress; never stdout, which belongs to `--json`.
            None when there is nobody to read it.
    """

    def __init__(self, redactor: Redactor, screen: TextIO | None = sys.stderr) -> None:
        self.redactor = redactor
        self._screen = screen
        self._lock = threading.Lock()
        self._pending: list[str] = []

    def write(self, text: str) -> None:
        """Write to the log alone."""
        stamp = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        lines = [f"{stamp} {line}" for line in self.redactor.mask(text).splitlines()]
        with self._lock:
            self._pending.extend(lines)

    def say(self, text: str) -> None:
        """Write to the log and tell the person at the terminal."""
        self.write(text)
        self._print(text)

    def show(self, line: str) -> None:
        """Show a line of a long command to the person who waits for it.

        The log gets it with the rest of the output, when the command has ended.
        """
        self._print(f"  | {line}")

    def echo(self, line: str) -> None:
        """Show a line that the log has already, from elsewhere."""
        self._print(line)

    def _print(self, text: str) -> None:
        # A closed terminal must not end a deployment.
        terminal.write(self._screen, self.redactor.mask(text))

    def learn(self, secrets: tuple[str, ...]) -> None:
        """From now on mask these values too, also in what is not stored yet."""
        with self._lock:
            self.redactor = self.redactor.with_values(secrets)
            self._pending = [self.redactor.mask(line) for line in self._pending]

    def take(self) -> bytes:
        """Return what was not taken yet, as the bytes to append to the log file."""
        with self._lock:
            lines, self._pending = self._pending, []
        return "".join(f"{line}\n" for line in lines).encode()
