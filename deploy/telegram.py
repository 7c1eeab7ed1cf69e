"""Telling the Master: one message, tried again where that can help, never an exception."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.request import HTTPErrorProcessor, HTTPSHandler, Request, build_opener

from deploy.redact import Redactor

if TYPE_CHECKING:
    from deploy.settings import Environment

LONGEST = 4096  # UTF-16 code units of a message, https://core.telegram.org/bots/api#sendmessage
CONNECT = 5.0  # seconds
FIRST_PAUSE = 0.5  # seconds, doubled after each try
TOLD = 400  # characters of a reason; it is cut after the token has been masked in it
LARGEST = 1 << 20  # bytes of an answer that are read
NEVER = 1e9  # seconds
HOPELESS = frozenset({400, 401, 403, 404})


@dataclass(frozen=True)
class Delivery:
    """What became of a message."""

    sent: bool
    attempts: int
    why: str = ""


@dataclass(frozen=True)
class Reply:
    """What the Bot API said to one try."""

    ok: bool
    why: str
    again_after: float | None


def send(environment: Environment, text: str, deadline: float) -> Delivery:
    """Send a message to the Master.

    Args:
        environment: Holds the bot's token, its server, and the Master's chat.
        text: Plain text; cut to what the Bot API takes.
        deadline: Seconds for all tries together.

    Returns:
        Whether it arrived, after how many tries, and otherwise why not.
    """
    token = environment.telegram_token.get_secret_value()
    if not token:
        return Delivery(sent=False, attempts=0, why="no token is set")
    url = f"{environment.telegram_api_base.rstrip('/')}/bot{token}/sendMessage"
    body = {"chat_id": environment.master_chat_id, "text": shortened(text)}
    mask = Redactor().with_values((token,)).mask
    ends = time.monotonic() + deadline
    pause, attempts = FIRST_PAUSE, 0
    while True:
        attempts += 1
        reply = _try(url, body, max(0.1, ends - time.monotonic()))
        if reply.ok:
            return Delivery(sent=True, attempts=attempts)
        wait = pause if reply.again_after is None else reply.again_after
        if wait < 0 or time.monotonic() + wait >= ends:
            return Delivery(sent=False, attempts=attempts, why=mask(reply.why)[:TOLD])
        threading.Event().wait(wait)
        pause *= 2


def shortened(text: str) -> str:
    """Return a text that the Bot API takes: its beginning, and a mark where it was cut."""
    text = text.encode(errors="replace").decode()  # half a character cannot travel
    if _units(text) <= LONGEST:
        return text
    kept = text.encode("utf-16-le")[: 2 * (LONGEST - 2)].decode("utf-16-le", errors="ignore")
    return f"{kept}\n…"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _try(url: str, body: dict[str, str], left: float) -> Reply:
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


def _post(url: str, body: dict[str, str], left: float) -> Reply:
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
    """Given the answer to a try, say whether it arrived, and when to try again.

    `again_after` is in seconds: None leaves it to the sender, below zero is never.
    """
    data = _json(content)
    if status == HTTPStatus.OK and data.get("ok") is True:
        return Reply(ok=True, why="", again_after=None)
    why = f"{status}: {data.get('description') or content.decode(errors='replace')}"
    if status in HOPELESS:
        return Reply(ok=False, why=why, again_after=-1)
    parameters = data.get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if isinstance(wait, int | float) and not isinstance(wait, bool) and wait > 0:
        return Reply(ok=False, why=why, again_after=float(min(wait, NEVER)))
    return Reply(ok=False, why=why, again_after=None)


def _json(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
