"""Telling the Master: one message, tried again where that can help, never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.telegram import api

if TYPE_CHECKING:
    from deploy.settings import Environment

LONGEST = 4096  # UTF-16 code units of a message, https://core.telegram.org/bots/api#sendmessage


@dataclass(frozen=True)
class Delivery:
    """What became of a message."""

    sent: bool
    attempts: int
    why: str = ""


def send(environment: Environment, text: str, deadline: float) -> Delivery:
    """Send a message to the Master.

    Args:
        environment: Holds the bot's token, its server, and the Master's chat.
        text: Plain text; cut to what the Bot API takes.
        deadline: Seconds for all tries together.

    Returns:
        Whether it arrived, after how many tries, and otherwise why not.
    """
    if not environment.telegram_token.get_secret_value():
        return Delivery(sent=False, attempts=0, why="no token is set")
    body = {"chat_id": environment.master_chat_id, "text": shortened(text)}
    answer = api.call(environment, "sendMessage", body, deadline)
    return Delivery(answer.reply.ok, answer.attempts, answer.reply.why)


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text that the Bot API takes: its beginning, and a mark where it was cut.

    Args:
        text: Any text.
        longest: UTF-16 code units that it may have.
    """
    text = text.encode(errors="replace").decode()  # half a character cannot travel
    if _units(text) <= longest:
        return text
    kept = text.encode("utf-16-le")[: 2 * (longest - 2)].decode("utf-16-le", errors="ignore")
    return f"{kept}\n…"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
