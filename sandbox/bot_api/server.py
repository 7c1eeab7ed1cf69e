"""The server's HTTP side."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from sandbox.bot_api.given import number, read
from sandbox.bot_api.methods import answer
from sandbox.bot_api.state import MASTER, BotApi, Refused, Trouble
from sandbox.bot_api.updates import deliver

CONTROL = "/control/"


def call(api: BotApi, path: str, given: dict[str, Any]) -> Any:
    """Return the result of a request.

    Raises:
        Refused: It is not accepted.
    """
    if api.control and path.startswith(CONTROL):
        return control(api, path.removeprefix(CONTROL), given)
    token, method = _parts(path)
    if not method:
        raise Refused(404, "Not Found")
    if token != api.token:
        raise Refused(401, "Unauthorized")
    with api.changed:
        api.calls.append(method)
    return answer(api, method, given)


def control(api: BotApi, verb: str, given: dict[str, Any]) -> Any:
    """Play the Master, or look at what was accepted.

    Raises:
        Refused: There is no such verb.
    """
    chat = str(given.get("chat", MASTER))
    if verb == "say":
        return api.say(str(given.get("text", "")), chat)
    if verb == "press":
        return api.press(number(given, "message_id", 0), str(given.get("data", "")), chat)
    if verb == "messages":
        with api.changed:
            return list(api.accepted)
    raise Refused(404, "Not Found")


def handler_of(api: BotApi) -> type[BaseHTTPRequestHandler]:
    """Return the request handler of a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve("", urlsplit(self.path).query.encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._serve(self.headers.get("Content-Type", ""), body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Keep quiet."""

        def _serve(self, kind: str, body: bytes) -> None:
            path = urlsplit(self.path).path
            trouble = _trouble(api, path)
            if trouble and not trouble.status:
                api.closing.wait(60)
                return
            if trouble and trouble.body is not None:
                self._write(trouble.status, trouble.body)
                return
            try:
                if trouble:
                    raise _refusal(trouble)
                found = call(api, path, read(kind, body))
                self._write(200, json.dumps({"ok": True, "result": found}).encode())
            except Refused as error:
                self._write(error.code, json.dumps(error.body).encode())

        def _write(self, status: int, body: bytes) -> None:
            # Who asked may be gone by now.
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    return Handler


@contextmanager
def served(api: BotApi, host: str = "127.0.0.1", port: int = 0) -> Iterator[BotApi]:
    """Run the server while the block runs; its address is in `url`."""
    server = ThreadingHTTPServer((host, port), handler_of(api))
    server.daemon_threads = True
    api.url = f"http://{host}:{server.server_port}"
    threads = (
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True),
        threading.Thread(target=deliver, args=(api,), daemon=True),
    )
    for thread in threads:
        thread.start()
    try:
        yield api
    finally:
        api.closing.set()
        with api.changed:
            api.changed.notify_all()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join(5)


def _parts(path: str) -> tuple[str, str]:
    if not path.startswith("/bot"):
        return "", ""
    token, _, method = path.removeprefix("/bot").partition("/")
    return token, method


def _trouble(api: BotApi, path: str) -> Trouble | None:
    """Take the next trouble that is meant for a call."""
    method = _parts(path)[1].lower()
    with api.changed:
        for item in api.troubles:
            if method and (item.method or method).lower() == method:
                api.troubles.remove(item)
                return item
    return None


def _refusal(trouble: Trouble) -> Refused:
    wait = trouble.retry_after
    text = (
        f"Too Many Requests: retry after {wait}" if trouble.status == 429 else "as it was told to"
    )
    return Refused(trouble.status, text, wait)
