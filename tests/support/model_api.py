"""A local server that speaks the part of an OpenAI-compatible API that is used, errors included.

From https://platform.openai.com/docs/api-reference/chat: `POST /chat/completions` with a Bearer
key; an error is `{"error": {"message": ...}}` with its status.
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

KEY = "sk-test-0123456789"
NAME = "small-model"


@dataclass(frozen=True)
class Odd:
    """How the next answer differs; `status` 0 is silence."""

    status: int = 200
    body: bytes | None = None


@dataclass
class ModelApi:
    """What the server was asked, and what a call takes."""

    url: str = ""
    prompt_tokens: int = 30
    completion_tokens: int = 10
    calls: list[dict[str, Any]] = field(default_factory=list)
    odd: deque[Odd] = field(default_factory=deque)
    closing: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)  # while not set, nobody answers

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """Answer with what was asked."""
        self.calls.append(given)
        said = f"You asked: {given['messages'][-1]['content']}"
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {
            "object": "chat.completion",
            "model": given["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}}],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }


def handler_of(api: ModelApi) -> type[Handler]:
    """Return the request handler of a server."""

    class ModelHandler(Handler):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            odd = api.odd.popleft() if api.odd else Odd()
            key = self.headers.get("Authorization")
            if key != f"Bearer {KEY}":
                odd = Odd(401, error(f"Incorrect API key provided: {key}"))
            elif self.path != "/v1/chat/completions":
                odd = Odd(404, error("no such path"))
            if not odd.status:
                api.closing.wait(60)
                return
            body = odd.body or json.dumps(api.answer(given)).encode()
            api.open.wait(60)
            self.write(odd.status, body)

    return ModelHandler


def error(message: str) -> bytes:
    """Return the body of an error."""
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


@contextmanager
def served(api: ModelApi) -> Iterator[ModelApi]:
    """Run the server while the block runs; its address is in `url`."""
    api.open.set()
    with http_server.served(handler_of(api), api.closing, api.open) as url:
        api.url = f"{url}/v1"
        yield api
