"""A local HTTP server for what a test plays: a provider of models, or the Docker engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers quietly."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Keep quiet."""

    def write(self, status: int, body: bytes) -> None:
        """Send an answer that says of itself that it is JSON."""
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(handler: type[Handler], *gates: threading.Event) -> Iterator[str]:
    """Run a server while the block runs, and give its address; in the end the gates are open."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # who asked was killed
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        for gate in gates:
            gate.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


class Hasty(Handler):
    """Answers before it has read what it was told, and goes."""

    def do_POST(self) -> None:
        """Answer."""
        self.close_connection = True
        self.write(403, b"0")


class Heard(Handler):
    """Answers with how much it was told."""

    def do_GET(self) -> None:
        """Answer."""
        self.write(200, b"0")

    def do_POST(self) -> None:
        """Answer."""
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.write(200, str(size).encode())


@contextmanager
def answering(path: Path, handler: type[Handler] = Heard) -> Iterator[None]:
    """Have somebody hear at a socket while the block runs."""
    with ThreadingUnixStreamServer(str(path), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(5)
