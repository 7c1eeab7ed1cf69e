"""One HTTP request that ends in time, whatever the other side does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

CONNECT = 3.0  # seconds
LARGEST = 4 * 1024 * 1024  # bytes of an answer


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    retry_after: str = ""


@dataclass(eq=False)
class NoAnswer(Exception):  # noqa: N818 - it says what it is
    """Nothing that can be used came back; `sent` where the other side may have got the request."""

    why: str
    sent: bool = True


def exchange(
    method: str,
    url: str,
    *,
    seconds: float,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request, and return its answer.

    A server that sends a byte now and then keeps a reader for as long as it likes: the reader is
    a thread that is left to itself when it is late.

    Args:
        method: GET or POST.
        url: Where to.
        seconds: How long it may take altogether.
        body: What is sent.
        headers: What is sent before it.

    Raises:
        NoAnswer: It took longer, was larger, or broke off; the text holds no secret.
    """
    found: queue.SimpleQueue[Answer | NoAnswer] = queue.SimpleQueue()
    late = NoAnswer(f"no answer within {seconds:g} s")

    def work() -> None:
        try:
            with requests.request(
                method,
                url,
                data=body,
                headers={"Accept-Encoding": "identity", **(headers or {})},
                timeout=(CONNECT, seconds),
                allow_redirects=False,
                stream=True,
            ) as answer:
                read = answer.raw.read(LARGEST + 1, decode_content=False)
                found.put(Answer(answer.status_code, read, answer.headers.get("Retry-After", "")))
        except requests.ReadTimeout:
            found.put(late)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            found.put(NoAnswer(type(error).__name__, sent=not _unsent(error)))

    threading.Thread(target=work, name="exchange", daemon=True).start()
    try:
        result = found.get(timeout=seconds)
    except queue.Empty:
        raise late from None
    if isinstance(result, NoAnswer):
        raise result
    if len(result.body) > LARGEST:
        raise NoAnswer(f"the answer is larger than {LARGEST} bytes")
    return result


def _unsent(error: Exception) -> bool:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
