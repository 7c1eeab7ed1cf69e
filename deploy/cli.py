"""Between the two command lines and the verbs: where errors become exit codes."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from deploy import settings as configuration
from deploy import terminal, usage
from deploy.called import as_called
from deploy.host import SSH_PORT
from deploy.outcome import Exit, Failure, Invalid, failure_of
from deploy.redact import Redactor
from deploy.session import Session, opened

Verb = Callable[[Session], Any]


@dataclass(frozen=True)
class Printer:
    """How an answer, or a failure, is shown, and which exit code an answer stands for."""

    answer: Callable[[Any], str]
    failure: Callable[[Failure], None]
    code: Callable[[Any], Exit] = lambda _answer: Exit.OK


def call(folder: Path, host: str, tool: str, verb: Verb, printer: Printer | None = None) -> None:
    """Run a verb and print what it says.

    Args:
        folder: The project.
        host: A host by name; empty means the one in invoke.yaml.
        tool: `inv` or `fab`.
        verb: What to run on the open session.
        printer: How to show its answer, by default as it is.

    Raises:
        SystemExit: It failed; the code is that of the contract.
    """
    shown = printer or words(str)
    try:
        with opened(folder, host, tool) as session:
            answer = verb(session)
            if answer is not None:
                session.print(shown.answer(answer))
    except BaseException as error:  # noqa: BLE001 - the one place where errors become codes
        _leave(error, shown, tool, host)
    if code := shown.code(answer):
        raise SystemExit(int(code))


def guard(act: Callable[[], Any], printer: Printer | None = None) -> None:
    """Run what needs no open session, and print what it says.

    Raises:
        SystemExit: It failed, or its answer stands for another code than success.
    """
    shown = printer or words(str)
    try:
        answer = act()
        if answer is not None:
            terminal.out(shown.answer(answer))
    except BaseException as error:  # noqa: BLE001 - the one place where errors become codes
        _leave(error, shown)
    if code := shown.code(answer):
        raise SystemExit(int(code))


def words(answer: Callable[[Any], str]) -> Printer:
    """Return the printer for people: a sentence to stdout, failures to stderr."""

    def failure(error: Failure) -> None:
        terminal.err(f"error: {Redactor().mask(error.as_text())}")

    return Printer(answer, failure)


def document() -> Printer:
    """Return the printer for machines: one JSON document on stdout, whatever happens."""

    def failure(error: Failure) -> None:
        terminal.out(json.dumps(Redactor().mask_all(error.as_json())))

    return Printer(lambda value: json.dumps(value, indent=2), failure)


def choose(answer: Callable[[Any], str], *, as_json: bool) -> Printer:
    """Return the printer that a verb's `--json` asks for."""
    return document() if as_json else words(answer)


def asked() -> Printer:
    """Return the printer that the command line asks for, as long as no task could say it."""
    return choose(str, as_json=not {"--json", "-j"}.isdisjoint(sys.argv))


def host_of(connection: Any) -> str:
    """Return the host that `fab -H` named.

    Raises:
        SystemExit: It named none: Fabric would then run everything on this machine.
    """
    name = getattr(connection, "original_host", "")
    if not name:
        _leave(Invalid("fab needs a host", where="fab", next_step="fab -H HOST VERB"), asked())
    user = "" if connection.user == connection.config.user else f"{connection.user}@"
    port = "" if connection.port == SSH_PORT else f":{connection.port}"
    return f"{user}{name}{port}"


def _leave(error: BaseException, printer: Printer, tool: str = "inv", host: str = "") -> NoReturn:
    if isinstance(error, SystemExit):
        raise error
    failure = failure_of(error)
    if failure is not error and not isinstance(error, KeyboardInterrupt):
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        terminal.err(Redactor().mask("".join(lines)).rstrip())
    failure.next_step = as_called(failure.next_step, tool, host)
    with contextlib.suppress(Exception):  # the code is what callers act on: it comes out anyway
        printer.failure(failure)
    raise SystemExit(int(failure.code)) from None


def wrong_usage(message: str) -> Invalid:
    """Return the failure for a command line that makes no sense."""
    return Invalid(message, next_step="inv --list, inv --help VERB; or the same with fab")


def take_over(folder: Path) -> None:
    """Give what goes wrong before any task runs the codes and the form of everything else.

    Invoke reads invoke.yaml by itself first and has a traceback for one that is garbled.
    """
    usage.adapt(lambda message: _leave(wrong_usage(message), asked()))
    sys.excepthook = explain(folder)


def explain(folder: Path) -> Callable[..., None]:
    """Return a stand-in for `sys.excepthook`, for a project's command line."""

    def hook(
        _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, BrokenPipeError):  # of what Invoke prints itself: it has been read
            terminal.silence()
            raise SystemExit(0) from None
        try:
            configuration.load(folder, {})
        except Failure as failure:
            _leave(failure, asked())
        if isinstance(error, ValueError):  # of Invoke's own keys, which only Invoke reads
            _leave(configuration.garbled(error, str(folder / configuration.FILE)), asked())
        _leave(error, asked())

    return hook
