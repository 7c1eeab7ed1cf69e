"""A local stand-in for the Docker engine behind its door: the four requests that the agent makes.

The real door before the real engine is tested in tests/integration/deploy/test_engine_door.py.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OURS = "server_agent_vnext_"


@dataclass
class Engine:
    """What runs, and what the engine was asked to do.

    Args:
        status: The status of each container, as the engine words it, by name.
        done: The paths of what was done.
        answers: How the next actions are answered instead of well.
        open: While it is not set, an action that was done is not answered.
    """

    status: dict[str, str] = field(default_factory=dict)
    url: str = ""
    done: list[str] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)
    open: threading.Event = field(default_factory=threading.Event)

    def containers(self) -> list[dict[str, Any]]:
        """Return the list as the engine does."""
        return [
            {"Names": [f"/{name}"], "State": state_of(text), "Status": text, "Labels": {}}
            for name, text in self.status.items()
        ]

    def act(self, path: str) -> tuple[int, object]:
        """Do what a path asks for; return status and body."""
        self.done.append(path)
        if path.endswith("prune"):
            return 200, {"SpaceReclaimed": 3 << 20}
        name = path.split("/")[2]
        if name not in self.status:
            return 404, {"message": f"No such container: {name}"}
        code = self.answers.popleft() if self.answers else 204
        if code < 300:
            self.status[name] = "Up 1 second"
        return code, None if code < 300 else {"message": "as it was told to"}


def state_of(status: str) -> str:
    """Return the state that goes with a status."""
    return {"Up": "running", "Exited": "exited", "Restarting": "restarting"}[
        status.split(maxsplit=1)[0]
    ]


def handler_of(engine: Engine) -> type[BaseHTTPRequestHandler]:
    """Return the request handler of a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path == "/containers/json?all=1"
            self._write(200 if good else 403, engine.containers() if good else None)

        def do_POST(self) -> None:
            status, body = engine.act(self.path)
            engine.open.wait(60)
            self._write(status, body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Keep quiet."""

        def _write(self, status: int, body: object) -> None:
            text = json.dumps(body).encode() if body is not None else b""
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


@contextmanager
def served(engine: Engine) -> Iterator[Engine]:
    """Run the server while the block runs; its address is in `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(engine))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # who asked was killed
    engine.url = f"http://127.0.0.1:{server.server_port}"
    engine.open.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.open.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
