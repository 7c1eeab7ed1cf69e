"""Programs that a dump goes through: started, read from, and ended with the block."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from deploy.postgres.reader import PIECE, Wrong


def pieces_of(file: IO[bytes] | None) -> Iterator[bytes]:
    """Return what a file or a pipe holds, piece by piece."""
    # As much as there is: a buffer that is waited for to be full would let both ends wait.
    while file and (piece := os.read(file.fileno(), PIECE)):
        yield piece


@dataclass(frozen=True)
class Program:
    """A program that runs, and what it complained about."""

    name: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def must_be_good(self) -> None:
        """Wait for its end.

        Raises:
            Wrong: It ended with an error.
        """
        code = self.process.wait()
        if code == 0:
            return
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        raise Wrong("\n".join((f"{self.name} ended with exit code {code}", *lines[-10:])))


@contextmanager
def running(argv: Sequence[str], name: str, **pipes: Any) -> Iterator[Program]:
    """Start a program; it does not outlive the block."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(argv, stderr=said, **pipes)
        except OSError as error:
            raise Wrong(f"{name} cannot be started: {error.strerror}") from error
        try:
            yield Program(name, process, said)
        finally:
            for end in (process.stdin, process.stdout):
                with suppress(OSError):
                    if end:
                        end.close()
            process.kill()
            process.wait()
