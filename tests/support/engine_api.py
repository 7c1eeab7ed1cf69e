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
from typing import Any

from tests.support import http_server
from tests.support.http_server import Handler

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
            return self.answers.popleft() if self.answers else 200, {"SpaceReclaimed": 3 << 20}
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


def handler_of(engine: Engine) -> type[Handler]:
    """Return the request handler of a server."""

    class EngineHandler(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            good = self.path == "/containers/json?all=1"
            self._say(200 if good else 403, engine.containers() if good else None)

        def do_POST(self) -> None:  # noqa: N802 - the same
            status, body = engine.act(self.path)
            engine.open.wait(60)
            self._say(status, body)

        def _say(self, status: int, body: object) -> None:
            self.write(status, json.dumps(body).encode() if body is not None else b"")

    return EngineHandler


@contextmanager
def served(engine: Engine) -> Iterator[Engine]:
    """Run the server while the block runs; its address is in `url`."""
    engine.open.set()
    with http_server.served(handler_of(engine), engine.open) as engine.url:
        yield engine
