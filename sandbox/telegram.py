"""A Bot API in the box, for the agent in there and for the pipeline out here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from deploy.outcome import Invalid
from sandbox.bot_api import MASTER, TOKEN
from sandbox.box import Box
from sandbox.shell import ask, must, pipe, until

ROOT = Path(__file__).resolve().parents[1]
NAME = "test-bot-api"
LOG = "/log"
UP = 60.0  # seconds
NEXT = "inv sandbox.down, then up, renews the box"


def start(box: Box, token: str = TOKEN) -> str:
    """Start it in a container of its own; return its address out here.

    Args:
        box: A running box.
        token: The only one that it takes.

    Raises:
        Invalid: It does not come up.
    """
    create = shlex.join(
        (
            *("docker", "create", "--name", NAME, "--network", "host"),
            *("python:3.11-slim-bookworm", "python", "-u", "-m", "sandbox.bot_api"),
            *("--host", "0.0.0.0", "--port", "80", "--token", token, "--chat", MASTER),  # noqa: S104 - of the box
            *("--log", LOG, "--control"),
        )
    )
    package = ("sandbox/__init__.py", "sandbox/bot_api")
    must(box.ssh(create), deadline=UP, next_step=NEXT)
    pipe(
        ("tar", "--create", "--exclude=__pycache__", f"--directory={ROOT}", *package),
        box.ssh(f"docker cp - {NAME}:/"),
        deadline=UP,
        next_step=NEXT,
    )
    must(box.ssh(f"docker start {NAME}"), deadline=UP, next_step=NEXT)
    logs = box.ssh(f"docker logs {NAME}")
    if not until(lambda: "http://" in ask(logs, deadline=UP).out, deadline=UP):
        raise Invalid("The Bot API in the box did not come up", where=NAME, next_step=NEXT)
    return f"http://{box.address}:8080"


def inside(box: Box) -> str:
    """Return its address for containers of the box."""
    text = must(box.ssh("ip -4 -o addr show docker0"), deadline=UP, next_step=NEXT)
    return f"http://{text.split()[3].partition('/')[0]}:80"


def question(url: str) -> dict[str, Any] | None:
    """Return the newest message with buttons that still has them."""
    newest: dict[int, dict[str, Any]] = {}
    for item in control(url, "messages"):
        if "message_id" in item:
            newest[item["message_id"]] = item
    asked = [item for item in newest.values() if item["reply_markup"]]
    return asked[-1] if asked else None


def press(url: str, message: dict[str, Any], word: str) -> str:
    """Press the button below a message whose data begins with a word; return what it shows."""
    for button in message["reply_markup"]["inline_keyboard"][0]:
        if button["callback_data"].startswith(word):
            data = button["callback_data"]
            control(url, "press", message_id=message["message_id"], data=data)
            return str(button["text"])
    raise Invalid(f"The message has no button to {word}", where=NAME)


def answer_to(url: str, text: str, wanted: str, deadline: float) -> str:
    """Write to the bot; return what it sends that holds what is wanted, nothing if not in time."""
    before = len(sent(url))
    control(url, "say", text=text)

    def answers() -> list[str]:
        return [item for item in sent(url)[before:] if wanted in item]

    until(lambda: bool(answers()), deadline=deadline)
    return "".join(answers()[:1])


def sent(url: str) -> list[str]:
    """Return the texts that the bot has sent."""
    accepted = control(url, "messages")
    return [item["text"] for item in accepted if item["method"] == "sendMessage"]


def control(url: str, verb: str, **given: Any) -> Any:
    """Play the Master: `say`, `press`, or `messages` for all that was accepted.

    Raises:
        OSError: It does not answer, or not in time.
    """
    request = Request(  # noqa: S310 - an address of ours
        f"{url}/control/{verb}", json.dumps(given).encode(), {"Content-Type": "application/json"}
    )
    with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
        return json.loads(answer.read())["result"]
