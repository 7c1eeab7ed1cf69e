"""What is printed: never an error, whatever has become of stdout and stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def out(text: str) -> None:
    """Print what was asked for; when nobody can read it, say so once on stderr.

    What was done stays done, so that alone decides the exit code.
    """
    why = write(sys.stdout, text)
    if why:
        err(f"warning: the output cannot be written to stdout: {why}")
        silence()


def err(text: str, end: str = "\n") -> None:
    """Tell a person something, when there is somebody to tell."""
    write(sys.stderr, text, end)


def write(stream: TextIO | None, text: str, end: str = "\n") -> str:
    """Write a text.

    Args:
        stream: Where to; None is what Python has for one that was closed at its start.
        text: What to write; what the stream's encoding lacks is written as escapes.
        end: What to write behind it.

    Returns:
        Why that was not possible, empty when it was.
    """
    if stream is None:
        return "it is closed"
    try:
        stream.write(fitting(text, stream.encoding or "utf-8") + end)
        stream.flush()
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def fitting(text: str, encoding: str) -> str:
    """Return a text with what an encoding lacks as escapes."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def silence() -> None:
    """Have stdout lead nowhere.

    Else the interpreter tries again at its end, and makes the exit code 120 when it cannot.
    """
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if sys.stdout is None:
            sys.stdout = os.fdopen(nowhere, "w")
        else:
            os.dup2(nowhere, sys.stdout.fileno())
