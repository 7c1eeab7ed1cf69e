"""The outside: HTTP requests that end in time, and JSON that is checked before it is believed."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import requests
from pydantic import BaseModel, TypeAdapter, ValidationError
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from server_agent.threads import within

T = TypeVar("T")
CONNECT = 3.0  # seconds
LARGEST = 4 * 1024 * 1024  # bytes of an answer


class Given(BaseModel, strict=True):
    """What comes from outside has these fields at least."""


def read(kind: type[T], text: str | bytes) -> T | None:
    """Return what JSON says, as a value of a kind; None when it says something else."""
    with suppress(ValueError, RecursionError):
        return check(kind, json.loads(text))
    return None


def check(kind: type[T], value: object) -> T | None:
    """Do the same with what JSON held."""
    with suppress(ValidationError):
        return TypeAdapter(kind).validate_python(value)
    return None


@dataclass(eq=False)
class Failed(Exception):  # noqa: N818 - it says what it is
    """It did not go well; `sent` where the other side may have done it nevertheless."""

    why: str
    sent: bool = True
    status: int = 0  # 0: nothing came back
    body: bytes = b""


def exchange(
    method: str, url: str, seconds: float, body: bytes = b"", headers: Mapping[str, str] = {}
) -> bytes:
    """Send a request, with JSON for a body; return what came back.

    Raises:
        Failed: It was refused, took more seconds altogether, or broke off; holds no secret of ours.
    """

    def work() -> tuple[int, bytes]:
        with requests.request(
            method,
            url,
            data=body,
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
            timeout=(CONNECT, seconds),
            allow_redirects=False,
            stream=True,
        ) as answer:
            return answer.status_code, answer.raw.read(LARGEST + 1, decode_content=False)

    acts = method != "GET"
    try:
        # A server that sends a byte now and then keeps a reader for as long as it likes.
        status, found = within(seconds, work)
    except (TimeoutError, requests.ReadTimeout):
        raise Failed(f"no answer within {seconds:g} s", acts) from None
    except (HTTPError, OSError, ValueError) as error:
        raise Failed(type(error).__name__, acts and not _unsent(error)) from None
    if not 200 <= status < 300:
        # What was refused was not worked on.
        raise Failed(f"HTTP {status}", acts and not 400 <= status < 500, status, found)
    if len(found) > LARGEST:
        raise Failed(f"the answer is larger than {LARGEST} bytes", acts)
    return found


def _unsent(error: Exception) -> bool:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
