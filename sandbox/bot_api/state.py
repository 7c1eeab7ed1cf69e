"""What the server knows, what it was told, and how the Master is played."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKEN = "123456:TEST-TOKEN-abcdefghijklmnopqrstuvwxyz0"  # noqa: S105 - of no bot
MASTER = "4242"
DEFAULT = ("message", "callback_query")  # the kinds of updates there are here


@dataclass(frozen=True)
class Trouble:
    """How a call goes wrong.

    Args:
        status: The HTTP status; 0 is silence.
        body: Replaces the answer.
        retry_after: Seconds to be left alone.
        method: The method whose next call it is; None: the next call of any.
    """

    status: int
    body: bytes | None = None
    retry_after: int | None = None
    method: str | None = None


@dataclass
class Webhook:
    """Where updates are sent, and what came of it."""

    url: str
    secret: str = ""
    last_error: str = ""
    last_error_at: int = 0


class Refused(Exception):  # noqa: N818 - it says what it is
    """The Bot API's own kind of error."""

    def __init__(self, code: int, description: str, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.body: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
        self.code = code
        if retry_after is not None:
            self.body["parameters"] = {"retry_after": retry_after}


@dataclass
class BotApi:
    """What the server knows; whoever changes it holds `changed`.

    Args:
        token: The bot's.
        chats: The chats that it may write to.
        log: A file that gets what is accepted, one JSON document a line.
        control: Whether /control/ plays the Master.
    """

    token: str = TOKEN
    chats: frozenset[str] = frozenset({MASTER})
    log: Path | None = None
    control: bool = False
    url: str = ""
    calls: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    troubles: deque[Trouble] = field(default_factory=deque)
    shown: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    pending: deque[dict[str, Any]] = field(default_factory=deque)
    allowed: tuple[str, ...] = DEFAULT
    webhook: Webhook | None = None
    poll: object = None
    queries: set[str] = field(default_factory=set)
    last_message: int = 0
    last_update: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def fail_next(self, *troubles: Trouble) -> None:
        """Make the next calls go wrong, one trouble each."""
        with self.changed:
            self.troubles.extend(troubles)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that were accepted."""
        return self.of("sendMessage")

    @property
    def edits(self) -> list[dict[str, Any]]:
        """The edits that were accepted."""
        return self.of("editMessageText")

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The answers to callback queries that were accepted."""
        return self.of("answerCallbackQuery")

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return what was accepted by a method, each with its time."""
        with self.changed:
            return [item for item in self.accepted if item["method"] == method]

    def texts(self) -> list[str]:
        """Return the texts of the messages that were accepted."""
        return [str(item["text"]) for item in self.messages]

    def accept(self, method: str, **what: Any) -> None:
        """Keep what was accepted."""
        item = {"method": method, "at": time.time(), **what}
        with self.changed:
            self.accepted.append(item)
            self.changed.notify_all()
            if self.log:
                with self.log.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(item) + "\n")

    def say(self, text: str, chat: str = MASTER) -> int:
        """Write to the bot from a chat; return the update's number."""
        with self.changed:
            message = {**self.heading(chat), "from": person(chat), "text": text}
            return self._happens("message", message)

    def press(self, message_id: int, data: str, chat: str = MASTER) -> int:
        """Press a button below a message in a chat; return the update's number.

        Like a client that is up to no good, it may send data that is on no button.
        """
        with self.changed:
            found = self.shown.get((chat, message_id))
            unknown = {"message_id": message_id, "date": 0, "chat": {"id": int(chat)}}
            query = str(7_000_000_000 + self.last_update)
            self.queries.add(query)
            what = {"id": query, "from": person(chat), "message": found or unknown}
            return self._happens("callback_query", {**what, "chat_instance": "1", "data": data})

    def heading(self, chat: str) -> dict[str, Any]:
        """Return the beginning of a new message in a chat."""
        self.last_message += 1
        return {"message_id": self.last_message, "date": int(time.time()), "chat": chat_of(chat)}

    def _happens(self, kind: str, what: dict[str, Any]) -> int:
        self.last_update += 1
        if kind in self.allowed:
            self.pending.append({"update_id": self.last_update, kind: what})
            self.changed.notify_all()
        return self.last_update


def chat_of(chat: str) -> dict[str, Any]:
    """Return a private chat as updates show it."""
    return {"id": int(chat), "first_name": "Master", "type": "private"}


def person(chat: str) -> dict[str, Any]:
    """Return whoever is at the other end of a private chat."""
    return {"id": int(chat), "is_bot": False, "first_name": "Master"}
