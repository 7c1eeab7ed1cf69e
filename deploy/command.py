"""Commands as values: built by pure functions, quoted here and nowhere else."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

LINK = "DEPLOY_LINK"  # marks in the environment what one caller runs on a host: LINK.NUMBER
DEPTH = {"git": 2, "docker": 2}  # the words that say what these do
GROUPS = ("builder", "buildx", "compose", "container", "image", "network", "volume")
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

    def called(self) -> str:
        """Return what a sentence calls it: its program, and of docker and git what they do."""
        words = _behind_env(self.argv)
        if words[0] == "bash":
            return "bash script"
        found, depth = [words[0]], DEPTH.get(words[0], 1)
        rest = iter(words[1:])
        while len(found) < depth and (word := next(rest, "")):
            if not word.startswith("-"):
                found.append(word)
                depth += found == ["docker", word] and word in GROUPS
            elif "=" not in word:
                next(rest, "")  # its value: before what they do these two know no other flags
        return " ".join(found)

    def wire(self) -> str:
        """Return the command as a POSIX shell reads it, with its deadline.

        A closed channel does not end a remote process, so `timeout` must stand there.
        """
        seconds = str(max(1, math.ceil(self.deadline)))
        line = shlex.join(("timeout", "-k", str(KILL_AFTER), seconds, *self.argv))
        return line if self.stdin is not None else f"{line} </dev/null"


def _behind_env(argv: tuple[str, ...]) -> tuple[str, ...]:
    rest = argv[1:] if argv[0] == "env" else argv
    while rest[1:] and (rest[0] == "-u" or "=" in rest[0]):
        rest = rest[2:] if rest[0] == "-u" else rest[1:]
    return rest or argv


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
