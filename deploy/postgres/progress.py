"""How far something is that takes long, said now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

EVERY = 2.0  # seconds between two words about how far it is


class Progress:
    """Says now and then how far it is.

    Args:
        expected: Bytes that will pass, 0 when nobody knows.
        what: What they are.
        say: Told of it.
    """

    def __init__(
        self,
        expected: int,
        what: str = "text",
        say: Callable[[str], Any] = lambda text: sys.stderr.write(f"{text}\n"),
    ) -> None:
        self._expected, self._what, self._say = expected, what, say
        self._began = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """Note how many bytes have passed."""
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            self._say(progress(done, self._expected, now - self._began, self._what))


def progress(done: int, expected: int, seconds: float, what: str = "text") -> str:
    """Say how far it is: the bytes that have passed and are expected (0: unknown), the time."""
    rate = done / max(seconds, 0.001)
    text = f"{done / 1e6:,.0f} MB of {what}, {rate / 1e6:,.0f} MB/s"
    if expected <= done:
        return text
    left = (expected - done) / max(rate, 1.0)
    return f"{text}, {100 * done // expected} %, about {left:,.0f} s left"
