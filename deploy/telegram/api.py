"""The Bot API: one call, tried again where that can help, never an exception."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.request import HTTPErrorProcessor, HTTPSHandler, Request, build_opener

from deploy.redact import Redactor

if TYPE_CHECKING:
    from deploy.settings import Environment

CONNECT = 5.0  # seconds
FIRST_PAUSE = 0.5  # seconds, doubled after each try
TOLD = 400  # characters of a reason; it is cut after the token has been masked in it
LARGEST = 1 << 24  # bytes of an answer that are read: of updates come a hundred at once
NEVER = 1e9  # seconds
# 409: somebody else hears the updates, https://core.telegram.org/bots/api#getupdates
HOPELESS = frozenset({400, 401, 403, 404, 409})


@dataclass(frozen=True)
class Reply:
    """What the Bot API said to one try.

    Args:
        ok: Whether it did what it was asked for.
        why: Why it did not.
        again_after: Seconds until another try; None leaves them to the caller, below zero is never.
        status: That of HTTP, 0 when there was no answer.
        result: What it returned.
    """

    ok: bool
    why: str
    again_after: float | None
    status: int = 0
    result: Any = None


@dataclass(frozen=True)
class Answer:
    """What came of a call: what was said at last, and after how many tries."""

    reply: Reply
    attempts: int


def call(environment: Environment, method: str, body: dict[str, Any], deadline: float) -> Answer:
    """Call a method of the Bot API, again as long as that can help.

    Args:
        environment: Holds the bot's token and its server.
        method: Its name.
        body: Its parameters, as JSON.
        deadline: Seconds for all tries together.

    Returns:
        What came of it; the token is masked in what it says.
    """
    token = environment.telegram_token.get_secret_value()
    url = f"{environment.telegram_api_base.rstrip('/')}/bot{token}/{method}"
    mask = Redactor().with_values((token,)).mask
    ends = time.monotonic() + deadline
    pause, attempts = FIRST_PAUSE, 0
    while True:
        attempts += 1
        reply = _try(url, body, max(0.1, ends - time.monotonic()))
        wait = pause if reply.again_after is None else reply.again_after
        if reply.ok or wait < 0 or time.monotonic() + wait >= ends:
            return Answer(replace(reply, why=mask(reply.why)[:TOLD]), attempts)
        threading.Event().wait(wait)
        pause *= 2


def _try(url: str, body: dict[str, Any], left: float) -> Reply:
    # Its timeout is for each piece of an answer, and none is for the whole: hence the thread.
    replies: list[Reply] = []
    thread = threading.Thread(
        target=lambda: replies.append(_post(url, body, left)), name="telegram", daemon=True
    )
    thread.start()
    thread.join(left + 0.5)
    late = Reply(ok=False, why="Timeout: the answer does not end", again_after=None)
    return replies[0] if replies else late


class _Connection(HTTPSConnection):
    """Gives an address less time than the answer: the first of several may be a dead one."""

    def connect(self) -> None:
        """Connect, then wait for the answer as long as there is time."""
        whole, self.timeout = self.timeout, min(CONNECT, self.timeout or CONNECT)
        super().connect()
        self.sock.settimeout(whole)


class _Secured(HTTPSHandler):
    """Connects that way."""

    def https_open(self, request: Request) -> Any:
        """Send a request."""
        return self.do_open(_Connection, request)


class _AsItIs(HTTPErrorProcessor):
    """Takes every answer as it is: an error says why, and a redirect is not followed."""

    def http_response(self, request: Request, response: HTTPResponse) -> HTTPResponse:  # noqa: ARG002 - the library names it
        """Return the answer."""
        return response

    https_response = http_response


def _post(url: str, body: dict[str, Any], left: float) -> Reply:
    try:
        request = Request(  # noqa: S310 - the settings have seen that it is http or https
            url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with build_opener(_Secured, _AsItIs).open(request, timeout=left) as answer:
            return read(answer.status, answer.read(LARGEST))
    # The libraries below let errors of their own through.
    except Exception as error:  # noqa: BLE001
        return Reply(ok=False, why=f"{type(error).__name__}: {error}", again_after=None)


def read(status: int, content: bytes) -> Reply:
    """Given the answer to a try, say whether it did what was asked, and when to try again."""
    data = _json(content)
    if status == HTTPStatus.OK and data.get("ok") is True:
        return Reply(ok=True, why="", again_after=None, status=status, result=data.get("result"))
    why = f"{status}: {data.get('description') or content.decode(errors='replace')}"
    return Reply(
        ok=False, why=why, again_after=_again(status, data.get("parameters")), status=status
    )


def _again(status: int, parameters: Any) -> float | None:
    if status in HOPELESS:
        return -1
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if isinstance(wait, int | float) and not isinstance(wait, bool) and wait > 0:
        return float(min(wait, NEVER))
    return None


def _json(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
