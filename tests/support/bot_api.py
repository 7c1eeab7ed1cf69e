"""A local server that speaks the part of the Bot API that is used here, errors included.

Rules from https://core.telegram.org/bots/api: answers are `{"ok": true, "result": ...}`, or
`{"ok": false, "error_code": N, "description": ...}` with the same HTTP status. Nothing but
the standard library, so that it also runs alone in a bare container.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LONGEST = 4096
TOKEN = "123456:TEST-TOKEN-abcdefghijklmnopqrstuvwxyz0"
MASTER = "4242"


@dataclass(frozen=True)
class Trouble:
    """How the next call goes wrong: `status` 0 is silence, `body` replaces the answer."""

    status: int
    body: bytes | None = None
    retry_after: int | None = None


@dataclass
class BotApi:
    """What the server knows and was told."""

    token: str = TOKEN
    chats: frozenset[str] = frozenset({MASTER})
    log: Path | None = None
    url: str = ""
    calls: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    troubles: deque[Trouble] = field(default_factory=deque)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail_next(self, *troubles: Trouble) -> None:
        """Make the next calls go wrong, one trouble each."""
        self.troubles.extend(troubles)

    def texts(self) -> list[str]:
        """Return the texts that were accepted."""
        with self.lock:
            return [str(item["text"]) for item in self.messages]

    def accept(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take a message, and give it its number."""
        with self.lock:
            self.messages.append(message)
            if self.log:
                with self.log.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(message) + "\n")
            number = len(self.messages)
        chat = {"id": int(message["chat_id"]), "type": "private"}
        return {"message_id": number, "date": 0, "chat": chat, "text": message["text"]}


class Refused(Exception):  # noqa: N818 - it says what it is
    """The Bot API's own kind of error."""

    def __init__(self, code: int, description: str, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.body: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
        self.code = code
        if retry_after is not None:
            self.body["parameters"] = {"retry_after": retry_after}


def answer(api: BotApi, path: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a method.

    Raises:
        Refused: It is not accepted.
    """
    token, _, method = path.removeprefix("/bot").partition("/")
    if not path.startswith("/bot") or token != api.token:
        raise Refused(401, "Unauthorized")
    with api.lock:
        api.calls.append(method)
    if method.lower() == "getme":
        return {"id": 123456, "is_bot": True, "first_name": "Test", "username": "test_bot"}
    if method.lower() != "sendmessage":
        raise Refused(404, "Not Found")
    text = str(given.get("text", ""))
    if not text.strip():
        raise Refused(400, "Bad Request: message text is empty")
    if str(given.get("chat_id", "")) not in api.chats:
        raise Refused(400, "Bad Request: chat not found")
    if len(text.encode("utf-16-le", "surrogatepass")) // 2 > LONGEST:
        raise Refused(400, "Bad Request: message is too long")
    return api.accept({"chat_id": str(given["chat_id"]), "text": text})


def read(kind: str, body: bytes) -> dict[str, Any] | None:
    """Return what a body asks for; None when it cannot be read."""
    try:
        text = body.decode()
        if "json" not in kind:
            return {key: item[-1] for key, item in parse_qs(text).items()}
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def handler_of(api: BotApi) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class in a function, each method plain
    """Return the request handler of a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve({key: item[-1] for key, item in parse_qs(self._parts().query).items()})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._serve(read(self.headers.get("Content-Type", ""), body))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Keep quiet."""

        def _parts(self) -> Any:
            return urlsplit(self.path)

        def _serve(self, given: dict[str, Any] | None) -> None:
            trouble = api.troubles.popleft() if api.troubles else None
            if trouble and not trouble.status:
                api.closing.wait(60)
                return
            if trouble and trouble.body is not None:
                self._write(trouble.status, trouble.body)
                return
            try:
                if given is None:
                    raise Refused(400, "Bad Request: the body cannot be read")
                if trouble:
                    raise Refused(trouble.status, "as it was told to", trouble.retry_after)
                found = answer(api, self._parts().path, given)
                self._write(200, json.dumps({"ok": True, "result": found}).encode())
            except Refused as error:
                self._write(error.code, json.dumps(error.body).encode())

        def _write(self, status: int, body: bytes) -> None:
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
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--chat", default=MASTER)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    api = BotApi(token=given.token, chats=frozenset({given.chat}), log=given.log)
    with served(api, given.host, given.port):
        print(api.url, flush=True)  # noqa: T201 - whoever started it waits for this line
        threading.Event().wait()


if __name__ == "__main__":
    main()
