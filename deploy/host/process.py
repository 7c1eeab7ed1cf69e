"""Running a command to its end, with a deadline on this side too."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from deploy.command import KILL_AFTER, Command
from deploy.log import RunLog
from deploy.outcome import DeployFailed, Unreachable

SSH_PORT = 22  # where a host listens when nobody says otherwise
GRACE = KILL_AFTER + 10  # seconds a host gets to enforce the deadline before we give up
LONGEST = 16 * 1024 * 1024  # bytes of one stream that are kept in memory
QUIET = 2.0  # seconds of silence after its end that a command's output is waited for
TIMED_OUT = 124  # what timeout(1) exits with
# What programs say, in small letters, of troubles that are those of the whole host.
CAUSES = {
    "no space left on device": (
        "The disk of {} is full",
        "df -h there shows which; make room, then do it again",
    ),
    "cannot connect to the docker daemon": (
        "The Docker engine of {} does not answer",
        "docker version there shows whether it is back; then do it again",
    ),
    **dict.fromkeys(
        ("/v2/", "pull access denied", "manifest unknown", "toomanyrequests"),  # of any registry
        (
            "{} cannot get an image",
            "docker pull IMAGE there says more; see to its name, the registry or the network",
        ),
    ),
}
KILLED = 137  # the same, when the polite signal was not enough


class CommandFailed(DeployFailed):
    """A command ended with an error nobody expected."""


class Process(Protocol):
    """A started command, wherever it runs."""

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input."""

    def end_input(self) -> None:
        """Close its standard input."""

    def read(self) -> bytes:
        """Return the next bytes of its standard output, empty at the end.

        Raises:
            Unreachable: The link was lost before the end.
        """

    def read_error(self) -> bytes:
        """Return the next bytes of its standard error, empty at the end.

        Raises:
            Unreachable: The link was lost before the end.
        """

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, or None when it still runs after that time.

        Raises:
            Unreachable: The link was lost, so the outcome is unknown.
        """

    def stop(self) -> None:
        """End it and close everything it holds."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Tell whether it ended without an error."""
        return self.code == 0

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of what it said, errors last."""
        return "\n".join(f"{self.out}\n{self.err}".strip().splitlines()[-lines:])


@dataclass(frozen=True)
class Host:
    """A machine that commands run on.

    Args:
        name: As the user typed it; `local` is this machine.
        address: Where its ports are reached from here.
        start: Starts a command.
        close: Ends the connection.
        log: Where every command and its output is written.
        python: Its interpreter, 3.11 or newer, which runs what is detached.
        package: Where this package lies on it, empty when it may have to be sent.
    """

    name: str
    address: str
    start: Callable[[Command], Process]
    close: Callable[[], None]
    log: RunLog
    python: str = "python3"
    package: str = ""

    def unlogged(self) -> Host:
        """Return the same host with a log of its own, for what must not stand in ours."""
        return replace(self, log=RunLog(self.log.redactor, io.StringIO()))

    def run(self, command: Command, heard: Callable[[str], None] | None = None) -> Result:
        """Run a command to its end and return how it ended.

        Args:
            command: What to run.
            heard: Called with each line of output as it arrives.

        Raises:
            CommandFailed: It did not end in time, even when it was told to.
            Unreachable: The host is gone, and the outcome unknown.
        """
        self.log.write(f"[{self.name}] $ {command.shown()}")
        began = time.monotonic()
        process = self.start(command)
        try:
            code, out, err = _collect(process, command, heard)
        finally:
            process.stop()
        seconds = time.monotonic() - began
        for stream in (out, err):
            if stream:
                self.log.write(stream)
        self.log.write(f"[{self.name}] exit {code} after {seconds:.2f} s")
        return Result(code, out, err, seconds)

    def ask(self, command: Command) -> str:
        """Run a command that must succeed and return what it said.

        Raises:
            CommandFailed: It ended with an error.
            Unreachable: The host is gone, and the outcome unknown.
        """
        result = self.run(command)
        if not result.ok:
            raise failed(self.name, command, result)
        return result.out

    def lines(self, command: Command) -> Iterator[str]:
        """Run a command that must succeed and return its lines as they come, logging none of them.

        Raises:
            CommandFailed: It ended with an error, after the lines that it gave.
            Unreachable: The host is gone, and the outcome unknown.
        """
        began = time.monotonic()
        ends = began + command.deadline + GRACE
        process, rest = self.start(command), [b""]
        try:
            process.end_input()
            errors = _Drain(process.read_error)
            while chunk := process.read():
                first, *more = chunk.split(b"\n")
                rest.append(first)
                for part in more:
                    yield b"".join(rest).decode(errors="replace")
                    rest = [part]
            code, ended = _wait(process, ends), time.monotonic()
            said = errors.text(ended, ends)
        finally:
            process.stop()
        if code:
            raise failed(self.name, command, Result(code, "", said, ended - began))
        yield b"".join(rest).decode(errors="replace")


def failed(where: str, command: Command, result: Result) -> CommandFailed:
    """Return the failure that a command's result stands for."""
    said = f"{result.out}\n{result.err}".lower()
    for sign, (what, next_step) in CAUSES.items():
        if sign in said:
            return CommandFailed(
                what.format(where), where=where, why=result.tail(3), next_step=next_step
            )
    late = result.code == KILLED and result.seconds >= command.deadline
    how = (
        f"did not end within {command.deadline:.0f} s"
        if late or result.code == TIMED_OUT
        else f"failed with exit code {result.code}"
    )
    return CommandFailed(f"`{command.called()}` {how}", where=where, why=result.tail())


def transfer(
    source: Host,
    out: Command,
    sink: Host,
    into: Command,
    passed: Callable[[int], None] | None = None,
) -> int:
    """Stream the output of one command into another, between any two hosts.

    Args:
        source: Where it comes from.
        out: What writes it there.
        sink: Where it goes to.
        into: What reads it there.
        passed: Told again and again how many bytes have travelled.

    Returns:
        The number of bytes that travelled.

    Raises:
        CommandFailed: Either end failed, or the deadline of `into` has passed.
        Unreachable: A link was lost.
    """
    sink.log.write(f"[{source.name}] $ {out.shown()}  ->  [{sink.name}] $ {into.shown()}")
    ends = time.monotonic() + into.deadline + GRACE
    # The source first: a sink without a source would take nothing for the whole.
    with contextlib.ExitStack() as started:
        reader = source.start(out)
        started.callback(reader.stop)
        writer = sink.start(into)
        started.callback(writer.stop)
        errors = [_Drain(reader.read_error), _Drain(writer.read_error), _Drain(writer.read)]
        total, whole = _pump(reader, writer, ends, passed)
        if not whole:
            reader.stop()  # nobody takes what it has left to say
        codes = (_wait(reader, ends) if whole else 0, _wait(writer, ends))
        ended = time.monotonic()
        said = [drain.text(ended, ends) for drain in errors]
    for host, command, code, text in (
        (source, out, codes[0], said[0]),
        (sink, into, codes[1], said[1] + said[2]),
    ):
        if code != 0:
            raise failed(host.name, command, Result(code, "", text, 0.0))
    if not whole:
        raise CommandFailed("The receiving end stopped listening", where=sink.name)
    sink.log.write(f"[{sink.name}] received {total} bytes")
    return total


def _pump(
    reader: Process, writer: Process, ends: float, passed: Callable[[int], None] | None
) -> tuple[int, bool]:
    total = 0
    while chunk := reader.read():
        try:
            writer.write(chunk)
        except OSError:  # its exit code says why
            return total, False
        total += len(chunk)
        if passed:
            passed(total)
        if time.monotonic() > ends:
            raise CommandFailed("The transfer did not end in time")
    with contextlib.suppress(OSError):
        writer.end_input()
    return total, True


def _collect(
    process: Process, command: Command, heard: Callable[[str], None] | None
) -> tuple[int, str, str]:
    feeder = threading.Thread(target=_feed, args=(process, command.stdin), daemon=True)
    out, err = _Drain(process.read, heard), _Drain(process.read_error, heard)
    feeder.start()
    ends = time.monotonic() + command.deadline + GRACE
    code = _wait(process, ends)
    ended = time.monotonic()
    return code, out.text(ended, ends), err.text(ended, ends)


def _wait(process: Process, ends: float) -> int:
    while time.monotonic() < ends:
        code = process.wait(0.2)
        if code is not None:
            return code
    raise CommandFailed("The command outlived its deadline on both sides")


def _feed(process: Process, data: bytes | None) -> None:
    with contextlib.suppress(OSError):  # a reader that ended early says so by its exit code
        if data:
            process.write(data)
        process.end_input()


class _Drain:
    """Reads a stream to its end in the background."""

    def __init__(
        self, read: Callable[[], bytes], heard: Callable[[str], None] | None = None
    ) -> None:
        self._kept = bytearray()
        self._lost: Unreachable | None = None
        self._waits_since: float | None = None
        self._thread = threading.Thread(target=self._run, args=(read, heard), daemon=True)
        self._thread.start()

    def _run(self, read: Callable[[], bytes], heard: Callable[[str], None] | None) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while chunk := self._next(read):
                self._kept += chunk[: max(0, LONGEST - len(self._kept))]
                if heard:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        heard(line.decode(errors="replace"))
        if heard and rest and not self._lost:  # half a line is none
            heard(rest.decode(errors="replace"))

    def _next(self, read: Callable[[], bytes]) -> bytes:
        self._waits_since = time.monotonic()
        try:
            return read()
        except Unreachable as error:
            self._lost = error
            return b""
        finally:
            self._waits_since = None

    def text(self, ended: float, ends: float) -> str:
        """Return all that was said; of an output that outlives its command, what is there.

        Raises:
            Unreachable: The link was lost before the end.
        """
        while self._thread.is_alive() and time.monotonic() < ends:
            self._thread.join(0.05)
            since = self._waits_since
            # A grandchild that keeps the pipe open must not hold us up.
            if since is not None and time.monotonic() - max(since, ended) > QUIET:
                break
        if self._lost:
            raise self._lost
        return bytes(self._kept).decode(errors="replace")
