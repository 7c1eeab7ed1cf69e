"""Constant requests at a front door, and how many of them it answered."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from deploy.probe import Figures, Sample, figures

PACE = 0.02  # seconds between two requests of one sender
SENDERS = 4
TIMEOUT = 10.0


def plain(netloc: str) -> http.client.HTTPConnection:
    """Return a connection to a host and port."""
    return http.client.HTTPConnection(netloc, timeout=TIMEOUT)


class Load:
    """Sends requests until it is stopped; every request opens a connection of its own.

    Args:
        url: What is asked for.
        connect: Makes a connection, given the host and port in the URL.
    """

    def __init__(
        self, url: str, connect: Callable[[str], http.client.HTTPConnection] = plain
    ) -> None:
        parts = urlsplit(url)
        self._netloc, self._connect = parts.netloc, connect
        self._path = parts.path or "/"
        self._stop = threading.Event()
        self._samples: list[Sample] = []
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 1)

    def figures(self) -> Figures:
        """Return the figures of all that was sent so far."""
        return figures(tuple(self._samples), self._began)

    def _send(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            wrong = self._ask()
            now = time.monotonic()
            self._samples.append(Sample(now, now - began, wrong))
            self._stop.wait(PACE)

    def _ask(self) -> str:
        connection = self._connect(self._netloc)
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return "" if answer.status == http.HTTPStatus.OK else f"status {answer.status}"


@dataclass(frozen=True)
class Request:
    """One request of steady traffic: wall-clock times, seconds beyond what it asks for, answer."""

    began: float
    ended: float
    beyond: float
    body: str
    wrong: str = ""


class Steady:
    """Requests at a steady pace over kept-alive connections: GET and POST, some of two seconds.

    Args:
        url: Scheme, host and port.
        rate: Requests a second, all connections together.
        connections: How many there are.
        slow: A path whose answer takes two seconds; every 25th request asks for it.
    """

    def __init__(self, url: str, rate: float = 50, connections: int = 20, slow: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._rate, self._slow = rate, slow
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._number = 0
        self._began = 0.0
        self._requests: list[Request] = []
        self._threads = [
            threading.Thread(target=self._send, daemon=True) for _ in range(connections)
        ]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 1)

    def requests(self) -> tuple[Request, ...]:
        """Return all that was sent and answered so far, in no order."""
        return tuple(self._requests)

    def _send(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        while True:
            with self._turn:
                number, self._number = self._number, self._number + 1
            wait = self._began + number / self._rate - time.monotonic()
            if self._stop.wait(max(0.0, wait)):
                connection.close()
                return
            self._requests.append(self._ask(connection, number))

    def _ask(self, connection: http.client.HTTPConnection, number: int) -> Request:
        slow = bool(self._slow) and number % 25 == 0
        method, path = ("POST", "GET")[number % 2], self._slow if slow else "/"
        began, clock = time.time(), time.monotonic()
        body, wrong = "", ""
        try:
            connection.request(method, path, body=b"x" * 512 if method == "POST" else None)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
            wrong = "" if answer.status == http.HTTPStatus.OK else f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            wrong = f"{method} {path}: {type(error).__name__}: {error}"
            connection.close()
        seconds = time.monotonic() - clock
        return Request(began, began + seconds, seconds - (2.0 if slow else 0.0), body, wrong)


def worst(requests: Sequence[Request], count: int = 10) -> float:
    """Return the median of the slowest requests, in seconds beyond what they asked for."""
    return statistics.median(sorted(item.beyond for item in requests)[-count:])
