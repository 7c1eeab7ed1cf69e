"""A thread that does one thing again and again until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

LATE = 30.0  # seconds without a sign of life after which a loop counts as failed


class Loop:
    """Calls a step; the step says how many seconds to wait before the next."""

    def __init__(self, name: str, step: Callable[[], float], late: float = LATE) -> None:
        self._name = name
        self._step = step
        self._late = late
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._beaten = time.monotonic()
        self._seconds = 0.0
        self._failed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the next step happen at once."""
        self._wake.set()

    def stop(self) -> None:
        """Ask the thread to end after its step."""
        self._stopping.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait so many seconds for the thread to end."""
        self._thread.join(seconds)

    def status(self) -> dict[str, str | float]:
        """Say whether it lives, and how long its last step took."""
        alive = self._thread.is_alive() and time.monotonic() - self._beaten < self._late
        state = "ok" if alive and not self._failed else "failed"
        return {"status": state, "latency_ms": round(self._seconds * 1000, 1)}

    def _run(self) -> None:
        log = logging.getLogger(f"server_agent.{self._name}")
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                pause = self._step()
                self._failed = False
            except Exception as error:
                log.warning("step failed: %s", type(error).__name__, exc_info=error)
                pause, self._failed = 1.0, True
            self._beaten = time.monotonic()
            self._seconds = self._beaten - began
            if self._wake.wait(pause):
                self._wake.clear()
