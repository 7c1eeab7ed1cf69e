"""Threads: one that does a thing again and again, and one that does it once with a deadline."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
LATE = 30.0  # seconds without a sign of life after which a loop counts as failed


class Loop:
    """Calls a step until it is told to stop; the step says how many seconds to wait then."""

    def __init__(self, name: str, step: Callable[[], float], late: float = LATE) -> None:
        self._step = step
        self._late = late
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._beaten = time.monotonic()
        self._failed = False

    def stop(self) -> None:
        """Ask the thread to end after its step."""
        self._stopping.set()

    def status(self) -> str:
        """Say whether it lives, and its last step did not fail."""
        lives = self.thread.is_alive() and time.monotonic() - self._beaten < self._late
        return "ok" if lives and not self._failed else "failed"

    def _run(self) -> None:
        log = logging.getLogger(f"server_agent.{self.thread.name}")
        while not self._stopping.is_set():
            try:
                pause = self._step()
                self._failed = False
            except Exception as error:
                log.exception("step failed: %s", type(error).__name__)
                pause, self._failed = 1.0, True
            self._beaten = time.monotonic()
            self._stopping.wait(pause)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do what cannot be told to stop; when it is late, its thread is left to itself.

    Raises:
        TimeoutError: It took longer.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            done.set_exception(error)

    threading.Thread(target=run, name="within", daemon=True).start()
    return done.result(seconds)
