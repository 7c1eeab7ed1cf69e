"""Commands as values: built by pure functions, quoted here and nowhere else."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

LINK = "DEPLOY_LINK"  # marks in the environment what one caller runs on a host
KILL_AFTER = 10  # seconds between the polite signal and the other one


@dataclass(frozen=True)
class Command:
    """What to run, what it reads and how long it may take.

    Args:
        argv: The program and its arguments. Secrets never stand here: any user of
            the host can read them in the process list. They travel by `stdin`.
        stdin: What the command reads; without it, nothing (never our own terminal).
        deadline: Seconds after which it is ended.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    deadline: float = 60.0

    def shown(self) -> str:
        """Return the command as it stands in the log."""
        return shlex.join(self.argv)

    def wire(self) -> str:
        """Return the command as a POSIX shell reads it, with its deadline.

        A closed channel does not end a remote process, so `timeout` must stand there.
        """
        seconds = str(max(1, math.ceil(self.deadline)))
        line = shlex.join(("timeout", "-k", str(KILL_AFTER), seconds, *self.argv))
        return line if self.stdin is not None else f"{line} </dev/null"


def command(*argv: str, stdin: bytes | None = None, deadline: float = 60.0) -> Command:
    """Return a command from its arguments."""
    return Command(tuple(argv), stdin, deadline)


def script(
    text: str, *arguments: str, stdin: bytes | None = None, deadline: float = 60.0
) -> Command:
    """Return a command that runs a constant shell text on arguments it sees as $1, $2 ...

    The text is never built from data: data arrives as arguments, quoted like any other.
    """
    argv = ("bash", "-euo", "pipefail", "-c", text, "deploy", *arguments)
    return Command(argv, stdin, deadline)
