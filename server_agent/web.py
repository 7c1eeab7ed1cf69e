"""HTTP requests: each ends in time, whatever the other side does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from server_agent.threads import within

CONNECT = 3.0  # seconds
LARGEST = 4 * 1024 * 1024  # bytes of an answer


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return what it holds; None when it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(eq=False)
class Failed(Exception):  # noqa: N818 - it says what it is
    """It did not go well; `sent` where the other side may have done it nevertheless."""

    why: str
    sent: bool = True


def exchange(
    method: str, url: str, seconds: float, body: bytes = b"", headers: Mapping[str, str] = {}
) -> Answer:
    """Send a request, with JSON for a body; return its answer, whatever its status.

    Raises:
        Failed: It took more seconds altogether, or broke off; the text holds no secret.
    """

    def work() -> Answer:
        with requests.request(
            method,
            url,
            data=body,
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
            timeout=(CONNECT, seconds),
            allow_redirects=False,
            stream=True,
        ) as answer:
            read = answer.raw.read(LARGEST + 1, decode_content=False)
            return Answer(answer.status_code, read)

    try:
        # A server that sends a byte now and then keeps a reader for as long as it likes.
        answer = within(seconds, work)
    except (TimeoutError, requests.ReadTimeout):
        raise Failed(f"no answer within {seconds:g} s") from None
    except (HTTPError, OSError, ValueError) as error:
        raise Failed(type(error).__name__, sent=not _unsent(error)) from None
    if len(answer.body) > LARGEST:
        raise Failed(f"the answer is larger than {LARGEST} bytes")
    return answer


def _unsent(error: Exception) -> bool:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
