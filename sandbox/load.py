"""Constant requests at a front door, and how many of them it answered."""

from __future__ import annotations

import http.client
import threading
import time
from typing import Self
from urllib.parse import urlsplit

from deploy.probe import Figures, Sample, figures

PACE = 0.02  # seconds between two requests of one sender
SENDERS = 4
TIMEOUT = 10.0


class Load:
    """Sends requests until it is stopped; every request opens a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
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
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return "" if answer.status == http.HTTPStatus.OK else f"status {answer.status}"
