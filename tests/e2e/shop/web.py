"""Greets with the commit it was built from; what else it does stands in the file `behaviour`."""

import base64
import hashlib
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

BEHAVIOUR = Path("behaviour").read_text().strip()
PORT = 8080
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
REQUESTS = count()


class Handler(BaseHTTPRequestHandler):
    """Answers `/health`, `/`, `/slow` (two seconds) and the websocket `/echo`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        if self.headers.get("Upgrade") == "websocket":
            self.echo()
        elif self.path == "/health":
            self.answer(200, "ok")
        elif BEHAVIOUR == "every second answer an error" and next(REQUESTS) % 2:
            self.answer(500, "no")
        else:
            self.greet()

    def do_POST(self) -> None:
        """Read what is sent, then answer alike."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.greet()

    def greet(self) -> None:
        """Say hello, slowly when asked to."""
        if BEHAVIOUR == "bad behind the proxy" and "X-Forwarded-For" in self.headers:
            return self.answer(500, "no")
        if self.path == "/slow":
            time.sleep(2)
        return self.answer(200, f"{os.environ['GREETING']} from {os.environ['VCS_REF']}\n")

    def answer(self, status: int, text: str) -> None:
        """Send an answer."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def echo(self) -> None:
        """Send back every frame, until the other side ends."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        while frame := self.connection.recv(1024):
            self.connection.sendall(frame)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Write nothing of it."""


def flood() -> None:
    """Write a line after the other."""
    while True:
        sys.stdout.write(f"{'flood ' * 100}\n")


def die_under_traffic() -> None:
    """End hard, seconds after the first request that came through the proxy."""
    arrived = threading.Event()
    answer = Handler.greet

    def greet(self: Handler) -> None:
        if "X-Forwarded-For" in self.headers:
            arrived.set()
        answer(self)

    Handler.greet = greet  # type: ignore[method-assign]
    arrived.wait()
    time.sleep(5)
    os._exit(3)


if BEHAVIOUR == "exits at once":
    sys.exit(0)
if BEHAVIOUR == "takes all memory":
    hoard = [bytearray(1 << 20) for _ in range(4096)]
if BEHAVIOUR == "starts slowly":
    time.sleep(40)
if BEHAVIOUR.startswith("starts after"):
    time.sleep(float(BEHAVIOUR.split()[2]))
if BEHAVIOUR == "floods its log":
    threading.Thread(target=flood, daemon=True).start()
if BEHAVIOUR == "dies under traffic":
    threading.Thread(target=die_under_traffic, daemon=True).start()
server = ThreadingHTTPServer(("", 9090 if BEHAVIOUR == "another port" else PORT), Handler)
if BEHAVIOUR == "ignores the signal":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
sys.exit(0)
