"""Asking the Master on Telegram, and hearing his answer where nobody else listens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from deploy.outcome import Invalid
from deploy.telegram import api, approval
from deploy.telegram.api import Reply
from deploy.telegram.approval import Heard, Posted, Request

if TYPE_CHECKING:
    from deploy.settings import Environment

TRY = 10.0  # seconds for one call, and what it takes to be answered
LISTEN = 5  # seconds that the Bot API may wait for an update
WINDOW = 100  # updates that the Bot API gives at once, and no more
REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def post(environment: Environment, request: Request) -> tuple[Posted | None, Reply]:
    """Send the message that asks.

    Returns:
        Where it stands, None when the Bot API is away or busy, which may pass; and what it said.

    Raises:
        Invalid: The Bot API knows the bot or the chat not, or answers what makes no sense.
    """
    body = {"chat_id": environment.master_chat_id, **approval.question(request)}
    reply = api.call(environment, "sendMessage", body, TRY).reply
    if reply.ok and (found := approval.posted(reply.result)):
        return found, reply
    if reply.ok or reply.status in (*REFUSED, HTTPStatus.NOT_FOUND):
        raise Invalid(
            "The Master cannot be asked",
            where="sendMessage of the Bot API",
            why=reply.why or "its answer makes no sense",
            next_step="correct TELEGRAM_API_TOKEN, MASTER_CHAT_ID or TELEGRAM_API_BASE",
        )
    return None, reply


def close(environment: Environment, message: Posted, text: str) -> str:
    """Give a message another text and no buttons; return why that failed, empty when it did not."""
    body = {"chat_id": message.chat, "message_id": message.message, "text": text}
    return api.call(environment, "editMessageText", body, TRY).reply.why


def answer(environment: Environment, heard: Heard) -> None:
    """End the waiting of whoever pressed, with what he decided; it matters to nobody else."""
    if heard.press:
        body = {"callback_query_id": heard.press, "text": heard.decision.capitalize()}
        api.call(environment, "answerCallbackQuery", body, TRY)


@dataclass
class Polling:
    """Hears by getUpdates, and leaves to whoever listens next what is not about its request.

    The Bot API keeps updates in a queue: to confirm one is to confirm all before it. So ours are
    confirmed only while nobody else's stands before them. One that stays says a number and a
    digest that nobody knows. `allowed_updates` is not sent either, since it would outlast us.

    Args:
        environment: Holds the bot's token and its server.
        offset: The first update that is not confirmed, 0 for whichever that is.
    """

    environment: Environment
    offset: int = 0

    def must_be_alone(self) -> None:
        """See that nobody else hears the updates.

        Raises:
            Invalid: Somebody does, or the Bot API does not know the bot.
        """
        self._updates(0)

    def hear(self, request: Request, message: Posted, seconds: float) -> tuple[Heard | None, bool]:
        """Wait for updates.

        Args:
            request: What the Master was asked.
            message: Where.
            seconds: How long, at most.

        Returns:
            What he decided, if he did; and whether the next try would come back at once, since
            updates lie there that are left alone, or the Bot API is away.

        Raises:
            Invalid: Somebody else hears the updates.
        """
        found = self._updates(max(0, min(LISTEN, int(seconds))))
        if found is None:
            return None, True
        judged = [(number, approval.judge(item, request, message)) for number, item in found]
        heard = next((item for _, item in judged if item), None)
        self.offset = confirmed([(number, bool(item)) for number, item in judged], self.offset)
        if heard:
            self._updates(0)  # which confirms
        return heard, bool(judged)

    def _updates(self, seconds: int) -> list[tuple[int, Any]] | None:
        offset = {"offset": self.offset} if self.offset else {}
        body = {"timeout": seconds, "limit": WINDOW, **offset}
        reply = api.call(self.environment, "getUpdates", body, seconds + TRY).reply
        if reply.status == HTTPStatus.CONFLICT:
            raise Invalid(
                "Somebody else hears the bot's updates, so that the Master's word would not arrive",
                where="getUpdates of the Bot API",
                why=reply.why,
                next_step="set the queries of `approval` in invoke.yaml, when the application hears"
                " him; else end the other, or deleteWebhook; or deploy without --require-approval",
            )
        if reply.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND):
            raise Invalid(
                "The Bot API does not know the bot",
                where="getUpdates of the Bot API",
                why=reply.why,
                next_step="correct TELEGRAM_API_TOKEN or TELEGRAM_API_BASE",
            )
        return numbered(reply.result) if reply.ok else None


def numbered(result: Any) -> list[tuple[int, Any]]:
    """Given what getUpdates returned, return the updates in it with their numbers."""
    items = [item for item in result if isinstance(item, dict)] if isinstance(result, list) else []
    return [(item["update_id"], item) for item in items if type(item.get("update_id")) is int]


def confirmed(found: Sequence[tuple[int, bool]], offset: int) -> int:
    """Return the first update that is not to be confirmed.

    Args:
        found: The numbers of those that lie there, and whether each is ours.
        offset: What was confirmed before.
    """
    own = [number for number, _ in itertools.takewhile(lambda item: item[1], found)]
    if own:
        return own[-1] + 1
    # Nobody can look past so many. Else strangers could keep the Master from being heard.
    return found[WINDOW // 2][0] if len(found) >= WINDOW else offset
