"""What an update says, and whether it is the Master who says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    """A text that the Master wrote."""

    text: str


@dataclass(frozen=True)
class Pressed:
    """A button that the Master pressed: the press's id, what it carries, its message's number."""

    id: str
    data: str
    message: int


def read(payload: dict[str, Any], master: str) -> Said | Pressed | None:
    """Return what the Master said or pressed; None when it is not him, or nothing to answer."""
    press = _mapping(payload.get("callback_query"))
    message = _mapping(press.get("message") if press else payload.get("message"))
    sender = _mapping((press or message).get("from"))
    if not _from_master(_mapping(message.get("chat")), sender, master):
        return None
    text = press.get("data") if press else message.get("text")
    if not isinstance(text, str):
        return None
    if not press:
        return Said(text)
    number = message.get("message_id")
    return Pressed(str(press.get("id")), text, number if isinstance(number, int) else 0)


def _from_master(chat: dict[str, Any], sender: dict[str, Any], master: str) -> bool:
    if not master or str(chat.get("id")) != master:
        return False
    return chat.get("type") != "private" or str(sender.get("id")) == master


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
