"""Runs steps in the order of their needs, and undoes them when one fails."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from types import FrameType
from typing import Any, Literal

from deploy import journal
from deploy.outcome import Failure, Terminated, failure_of
from deploy.run import Run, StepRecord

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@dataclass(frozen=True)
class Done:
    """How a step went when it did not fail."""

    note: str = ""
    state: Literal["ok", "skipped", "warned"] = "ok"


def nothing(_run: Run) -> None:
    """Undo a step that leaves nothing to undo."""


@dataclass(frozen=True)
class Step:
    """A part of a run.

    Args:
        name: One word, as it stands in the log and the record.
        needs: The steps that must be done before.
        apply: Does it; raises a Failure, or says how it went.
        undo: Takes it back, also when it failed halfway.
        title: What it does, for people.
    """

    name: str
    needs: tuple[str, ...]
    apply: Callable[[Run], Done]
    title: str
    undo: Callable[[Run], None] = nothing


def ordered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps such that each comes after what it needs, else as they stand.

    Raises:
        ValueError: A step needs one that is not there, or they need each other.
    """
    by_name = {step.name: step for step in steps}
    rank = {step.name: number for number, step in enumerate(steps)}
    unknown = {need for step in steps for need in step.needs} - set(by_name)
    if unknown:
        raise ValueError(f"steps nobody declares: {', '.join(sorted(unknown))}")
    sorter = TopologicalSorter({step.name: step.needs for step in steps})
    sorter.prepare()
    found: list[Step] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=rank.__getitem__)
        name = ready.pop(0)
        found.append(by_name[name])
        sorter.done(name)
    return tuple(found)


def execute(run: Run, steps: Sequence[Step]) -> None:
    """Run the steps one after another; when one fails, undo what was done, newest first.

    Raises:
        Failure: What ended the run. What had to be undone was, or its `why` says what
            could not be.
    """
    begun: list[Step] = []
    try:
        with terminable():
            for step in ordered(steps):
                begun.append(step)
                _apply(run, step)
            if run.journaled:
                _flush(run)
    except BaseException as error:
        failure = failure_of(error)
        if failure is not error:  # nobody foresaw it, so where it came from is all there is
            run.log.write("".join(traceback.format_exception(error)))
        if not run.committed:
            with undisturbed():
                undo(run, begun)
        if failure is error:
            raise
        raise failure from error


def _apply(run: Run, step: Step) -> None:
    record = StepRecord(step.name, "running")
    run.steps.append(record)
    began = time.monotonic()
    try:
        if run.held:
            run.held.check()
            run.held.at(step.name)
        if run.journaled:
            journal.note(run, step.name, "begin")
            _flush(run)  # with the end of the step before, which came a moment ago
        run.log.say(f"→ {step.name}: {step.title}")
        done = step.apply(run)
    except BaseException as error:
        record.state, record.seconds = "failed", time.monotonic() - began
        failure = failure_of(error)
        record.note = run.log.redactor.mask(failure.what)
        run.log.say(f"✗ {step.name} failed after {record.seconds:.1f} s: {failure.what}")
        raise
    record.state, record.note = done.state, run.log.redactor.mask(done.note)
    record.seconds = time.monotonic() - began
    mark = {"ok": "✓", "skipped": "-", "warned": "!"}[done.state]
    run.log.say(f"{mark} {step.name} {record.seconds:.1f} s{': ' if done.note else ''}{done.note}")
    if run.journaled:
        journal.note(run, step.name, done.state, note=done.note)


def _flush(run: Run) -> None:
    try:
        journal.flush(run)
    except Failure as error:
        if not run.committed:
            raise
        # What is live stays live; a line that is missing must not make it a failed run.
        run.warn(f"the journal could not be kept: {error.as_text()}")


def undo(run: Run, begun: Sequence[Step]) -> None:
    """Take back what was begun, newest first, as far as it can be."""
    for step in reversed(begun):
        if step.undo is nothing:
            continue
        run.log.write(f"undoing {step.name}")
        try:
            step.undo(run)
        except Failure as error:
            # What it leaves may lean on what the steps before it made: those stay.
            run.warn(f"{step.name} could not be undone: {error.what} {error.why}".strip())
            return


def terminable() -> AbstractContextManager[None]:
    """Let a signal end what runs, as a failure like any other."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated("Terminated", next_step="inv status")

    # What starts us in the background may have told us to ignore the first.
    return handled({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate})


def undisturbed() -> AbstractContextManager[None]:
    """Let nobody interrupt the way back."""
    return handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGALRM), signal.SIG_IGN))


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals another way for a while."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
