"""Hear webhooks: `python3 -m deploy.triggers.listen PLAN ADDRESS [COMMAND ...]`.

The address is `127.0.0.1:9000`, or the path of a socket. The command is started whenever
something is to be deployed; without one, somebody else looks after the queue. Needs uvicorn,
which comes along in the library.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from deploy import terminal
from deploy.docker.proxy import WEBHOOK_BODY as BODY
from deploy.layout import Layout
from deploy.outcome import Exit, Failure, Invalid
from deploy.triggers import queue
from deploy.triggers.deploying import keep
from deploy.triggers.events import SHORTEST, Answer, Push, read

VARIABLE = "LISTEN_SECRET"
BODIES = 64 * 1024 * 1024  # bytes of all that are being read
SLOWEST = 10.0  # seconds in which a body must have come
GOODBYE = 5  # seconds that requests get when the listener ends
REPLAYED = Answer(409, "this delivery was taken before")
TAKEN = Answer(202, "it will be deployed")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """A request that is not read to its end."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, text)


@dataclass
class Door:
    """What all requests share.

    Args:
        book: The deliveries that were taken.
        secret: What the senders know.
        branch: The branch that is deployed.
        called: Set when something is to be deployed.
    """

    book: queue.Book
    secret: bytes
    branch: str
    called: asyncio.Event = field(default_factory=asyncio.Event)
    held: int = 0
    coming: list[tuple[Push, asyncio.Future[bool]]] = field(default_factory=list)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            answer = await self._answer(scope, receive)
        except Refused as refused:
            answer = refused.answer
        if scope["method"] == "POST":
            terminal.err(f"{answer.status} {answer.text}")
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if answer.status >= 400:  # what is left of it shall not be read as another request
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{answer.text}\n".encode()})

    async def _answer(self, scope: Any, receive: Receive) -> Answer:
        if scope["method"] == "GET":
            return Answer(200, "listening")
        if scope["method"] != "POST":
            return Answer(405, "only POST is of use here")
        headers = dict(scope["headers"])
        said = headers.get(b"content-length", b"0")
        if not said.isdigit() or int(said) > BODY:
            return Answer(413, f"a body may have {BODY} bytes")
        push = read(headers, await self._body(receive), self.secret, self.branch)
        if isinstance(push, Answer):
            return push
        try:
            taken = await self._take(push)
        except OSError as error:
            return Answer(503, f"it cannot be kept: {error.strerror}")
        return TAKEN if taken else REPLAYED

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(SLOWEST):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "it ended too early")
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    self.held += len(part)
                    if size > BODY:
                        raise Refused(413, f"a body may have {BODY} bytes")
                    if self.held > BODIES:
                        raise Refused(503, "too much comes in at once")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Refused(408, "its body came too slowly") from error
        finally:
            self.held -= size

    async def _take(self, push: Push) -> bool:
        """Keep a push on disk, with all that have come meanwhile; return whether it is new."""
        ended = asyncio.get_running_loop().create_future()
        self.coming.append((push, ended))
        async with self.writing:
            batch, self.coming = self.coming, []
            if batch:
                await self._write(batch)
        return bool(await ended)

    async def _write(self, batch: list[tuple[Push, asyncio.Future[bool]]]) -> None:
        pushes = [push for push, _ in batch]
        try:
            fresh = await asyncio.to_thread(self.book.take, pushes)
        except OSError as error:
            for _, ended in batch:
                ended.set_exception(error)
            return
        for (_, ended), new in zip(batch, fresh, strict=True):
            ended.set_result(new)
        self.called.set()


def bound(address: str) -> list[socket.socket]:
    """Return what hears at an address; nothing for a path, which uvicorn sees to by itself.

    Raises:
        Invalid: Nobody can listen there.
    """
    host, _, port = address.rpartition(":")
    if address.startswith("/"):
        return []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return [socket.create_server((host, int(port)), family=family, backlog=2048)]
    except OSError as error:
        raise Invalid(
            f"Nobody can listen at {address}",
            where="--address",
            why=str(error.strerror),
            next_step=f"ss -ltnp 'sport = :{port}' shows who does; or name another address",
        ) from error


async def serve(door: Door, folder: Path, address: str, argv: Sequence[str]) -> None:
    """Answer webhooks until we are told to end.

    Args:
        door: What is served.
        folder: The queue.
        address: `HOST:PORT`, or the path of a socket.
        argv: What deploys; empty when somebody else sees to it.

    Raises:
        Invalid: Nobody can listen at the address.
        SystemExit: The same, of a path.
    """
    sockets = bound(address)
    config = uvicorn.Config(
        door,
        uds=None if sockets else address,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GOODBYE,
    )
    terminal.err(f"listening at {address}; {door.branch} is deployed")
    async with asyncio.TaskGroup() as tasks:  # each ends with the other
        keeper = tasks.create_task(keep(folder, argv, door.called))
        await uvicorn.Server(config).serve(sockets or None)
        keeper.cancel()


def secret_of(path: Path, environ: Mapping[str, str]) -> bytes:
    """Return the secret of the webhooks.

    Raises:
        Invalid: There is none, or others may read it.
    """
    told = environ.get(VARIABLE, "").encode()
    if not told:
        try:
            mode, told = path.stat().st_mode & 0o077, path.read_bytes().strip()
        except OSError as error:
            raise Invalid(
                "There is no secret that webhooks are proved by",
                where=str(path),
                why=str(error.strerror),
                next_step=f"inv setup makes one; or set {VARIABLE}",
            ) from error
        if mode:
            raise Invalid(
                "Others may read the secret of the webhooks",
                where=str(path),
                next_step=f"chmod 0600 {path}; and make a new one if they are not to be trusted",
            )
    if len(told) < SHORTEST:
        raise Invalid(
            f"The secret of the webhooks has fewer than {SHORTEST} characters",
            where=VARIABLE if environ.get(VARIABLE) else str(path),
            next_step="openssl rand -hex 32",
        )
    return told


def main(words: list[str]) -> int:
    """Listen.

    Args:
        words: The plan, the address, and the command that deploys.

    Returns:
        The exit code.
    """
    path, address, *argv = words
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))["settings"]
        layout = Layout(settings["deploy"]["root"])
        secret = secret_of(Path(layout.webhook_secret), os.environ)
        os.environ.pop(VARIABLE, None)  # what is started has no use for it
        folder = Path(layout.queue)
        door = Door(queue.Book(folder), secret, settings["git"]["branch"])
        asyncio.run(serve(door, folder, address, argv))
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except Failure as failure:
        terminal.err(f"error: {failure.as_text()}")
        return int(failure.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
