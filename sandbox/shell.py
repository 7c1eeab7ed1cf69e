"""The one room that starts programs for the sandbox, each with a deadline."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy import terminal
from deploy.outcome import Invalid

TAIL = 6  # lines of a failed program's output that a person gets to see
WIDTH = 200  # and how much of each


@dataclass(frozen=True)
class Answer:
    """What a program said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Tell whether the program ended with 0."""
        return self.code == 0

    def tail(self) -> str:
        """Return the last lines of what it said, the errors if there are any."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return "\n".join(line[:WIDTH] for line in lines[-TAIL:])


def say(text: str) -> None:
    """Write one line of progress where it cannot mix with a result."""
    terminal.err(text)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what was done and how many seconds it took, also when it failed."""
    start = time.monotonic()
    state = "failed"
    try:
        yield
        state = "ok"
    finally:
        say(f"  {name:<58} {state:<6} {time.monotonic() - start:6.1f} s")


def shown(argv: Sequence[str]) -> str:
    """Return a command as an error message shows it: one line, not too long."""
    text = shlex.join(argv).replace("\n", " ")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."


def ask(
    argv: Sequence[str],
    *,
    deadline: float,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Answer:
    """Run a program and return what it answered, whatever that is.

    Args:
        argv: The program and its arguments.
        deadline: Seconds after which it is ended.
        stdin: What it reads.
        env: Its whole environment; ours when left out.
        cwd: Where it runs.

    Returns:
        The answer; 127 when the program does not exist, 124 when it took too long.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
            check=False,
            env=env,
            cwd=cwd,
        )
    except FileNotFoundError:
        return Answer(127, "", f"{argv[0]}: not found")
    except PermissionError as error:
        return Answer(126, "", str(error))
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {deadline:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr)


def must(
    argv: Sequence[str],
    *,
    deadline: float,
    next_step: str,
    stdin: str = "",
    cwd: Path | None = None,
) -> str:
    """Run a program that has to succeed and return its output.

    Raises:
        Invalid: When it did not.
    """
    answer = ask(argv, deadline=deadline, stdin=stdin, cwd=cwd)
    if not answer.ok:
        raise Invalid(
            f"`{shown(argv)}` ended with {answer.code}",
            why=answer.tail(),
            next_step=next_step,
        )
    return answer.out


def pipe(first: Sequence[str], second: Sequence[str], *, deadline: float, next_step: str) -> str:
    """Let one program read what another writes, and return what the reader answered.

    Raises:
        Invalid: When either of them failed, or both together took too long.
    """
    both = f"`{shown(first)} | {shown(second)}`"
    with subprocess.Popen(first, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as writer:
        try:
            reader = subprocess.run(
                second,
                stdin=writer.stdout,
                capture_output=True,
                text=True,
                timeout=deadline,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Invalid(f"{both} took over {deadline:.0f} s", next_step=next_step) from error
        finally:
            if writer.stdout is not None:
                writer.stdout.close()  # a writer that is not read any more ends by SIGPIPE
    if reader.returncode or writer.returncode:
        raise Invalid(
            f"{both} failed",
            why=Answer(reader.returncode, reader.stdout, reader.stderr).tail(),
            next_step=next_step,
        )
    return reader.stdout


def until(
    question: Callable[[], bool],
    *,
    deadline: float,
    every: float = 0.1,
) -> bool:
    """Ask again and again until the answer is yes or the deadline is over."""
    end = time.monotonic() + deadline
    while not question():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True
