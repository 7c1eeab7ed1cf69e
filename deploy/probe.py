"""Requests at the front door while a release is replaced: availability, measured."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from typing import Any
from urllib.parse import urlsplit

PACE = 0.05  # seconds between two requests of one sender
SENDERS = 2
TIMEOUT = 10.0
SERVER_ERROR = 500


@dataclass(frozen=True)
class Sample:
    """One request: when it was over, how long it took, and what was wrong with its answer."""

    ended: float
    seconds: float
    wrong: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether it was answered well."""
        return not self.wrong


@dataclass(frozen=True)
class Figures:
    """What came of all requests; times in seconds."""

    sent: int
    failed: int
    slowest: float
    longest_gap: float
    wrong: tuple[str, ...] = ()

    def as_text(self) -> str:
        """Say it in a line."""
        return (
            f"{self.sent} requests sent, {self.failed} failed,"
            f" slowest {self.slowest:.3f} s, longest gap {self.longest_gap:.3f} s"
            + (f" ({'; '.join(self.wrong)})" if self.wrong else "")
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in a record."""
        return {
            **asdict(self),
            "slowest": round(self.slowest, 3),
            "longest_gap": round(self.longest_gap, 3),
        }


def figures(samples: Sequence[Sample], began: float) -> Figures:
    """Given the samples, return their figures; a gap is the time between two good answers."""
    good = sorted(item.ended for item in samples if item.ok)
    ended = max((item.ended for item in samples), default=began)
    marks = [began, *good, ended]
    return Figures(
        sent=len(samples),
        failed=sum(1 for item in samples if not item.ok),
        slowest=max((item.seconds for item in samples), default=0.0),
        longest_gap=max(later - earlier for earlier, later in pairwise(marks)),
        wrong=tuple(sorted({item.wrong for item in samples if item.wrong})),
    )


class Probe:
    """Sends requests from the host until it is ended; each opens a connection of its own.

    Args:
        door: Scheme, host and port of the front door.
        paths: What is asked for, in turn; an answer below 500 is a good one.
        at: The IP address to connect to, empty for the one that the door's name stands for.
    """

    def __init__(self, door: str, paths: Sequence[str], at: str = "") -> None:
        self._door, self._paths, self._at = urlsplit(door), tuple(paths), at
        self._stop = threading.Event()
        self._samples: list[Sample] = []
        self._began = 0.0
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Begin, unless it has begun."""
        if not self._threads:
            self._began = time.monotonic()
            self._threads = [
                threading.Thread(target=self._send, name="probe", daemon=True)
                for _ in range(SENDERS)
            ]
            for thread in self._threads:
                thread.start()

    def end(self) -> Figures | None:
        """Stop and return the figures; None when it never began."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 1)
        return figures(tuple(self._samples), self._began) if self._threads else None

    def since(self, moment: float) -> Figures:
        """Return the figures of what was answered since a moment of the monotonic clock."""
        return figures([item for item in tuple(self._samples) if item.ended >= moment], moment)

    def _send(self) -> None:
        for path in cycle(self._paths):
            if self._stop.is_set():
                return
            began = time.monotonic()
            wrong = self._ask(path)
            now = time.monotonic()
            self._samples.append(Sample(now, now - began, wrong))
            self._stop.wait(PACE)

    def _ask(self, path: str) -> str:
        connection = http.client.HTTPConnection(self._door.netloc, timeout=TIMEOUT)
        try:
            connection.sock = self._connected()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return "" if answer.status < SERVER_ERROR else f"status {answer.status}"

    def _connected(self) -> socket.socket:
        name, secure = self._door.hostname or "", self._door.scheme == "https"
        port = self._door.port or (443 if secure else 80)
        plain = socket.create_connection((self._at or name, port), TIMEOUT)
        if not secure:
            return plain
        # Whether it answers is asked here; whether its certificate is good, by others.
        trusting = ssl._create_unverified_context()  # noqa: S323, SLF001
        try:
            return trusting.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise
