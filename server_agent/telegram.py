"""The Bot API: each method with a deadline, no token in any error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from server_agent.settings import Settings

CONNECT = 3.0  # seconds
ANSWER = 5.0  # seconds
LONGEST = 4096  # UTF-16 code units, https://core.telegram.org/bots/api#sendmessage
LONGEST_TOLD = 200  # the same of a callback's answer
LONGEST_WAIT = 3600.0  # seconds; asked to wait for longer, asking again once an hour is civil
FINAL = frozenset({400, 401, 403, 404})
TRIES = 60  # with the pauses between them about an hour
LONGEST_PAUSE = 60.0  # seconds
KINDS = ("message", "callback_query")  # the updates that we want


@dataclass(frozen=True)
class TelegramError(Exception):
    """The Bot API did not do what it was asked.

    Args:
        why: What it said.
        final: Whether trying again cannot help.
        retry_after: Seconds it wants to be left alone.
    """

    why: str
    final: bool = False
    retry_after: float | None = None


@dataclass(frozen=True)
class Button:
    """What the Master presses below a message, and what comes back then (64 bytes at most)."""

    text: str
    data: str


def get_me(settings: Settings) -> None:
    """See that the bot exists and its server answers.

    Raises:
        TelegramError: It does not.
    """
    _call(settings, "getMe", {})


def send_message(
    settings: Settings, chat_id: str, text: str, buttons: Sequence[Button] = ()
) -> int:
    """Send a plain text, with a row of buttons below it; return the message's number.

    Raises:
        TelegramError: It was not accepted.
    """
    body: dict[str, Any] = {"chat_id": chat_id, "text": shortened(text, LONGEST)}
    if buttons:
        row = [{"text": item.text, "callback_data": item.data} for item in buttons]
        body["reply_markup"] = {"inline_keyboard": [row]}
    found = _call(settings, "sendMessage", body)
    number = found.get("message_id") if isinstance(found, Mapping) else None
    return number if isinstance(number, int) else 0


def edit_message(settings: Settings, chat_id: str, number: int, text: str) -> None:
    """Replace the text of a message that we sent, and take its buttons away.

    Raises:
        TelegramError: It was not accepted.
    """
    body = {"chat_id": chat_id, "message_id": number, "text": shortened(text, LONGEST)}
    _call(settings, "editMessageText", body)


def answer_callback(settings: Settings, identity: str, text: str) -> None:
    """Tell whoever pressed a button what came of it.

    Raises:
        TelegramError: It was not accepted; after some minutes it never is.
    """
    body = {"callback_query_id": identity, "text": shortened(text, LONGEST_TOLD)}
    _call(settings, "answerCallbackQuery", body)


def get_updates(settings: Settings, offset: int, seconds: int) -> list[Any]:
    """Wait for updates, so many seconds at the most; those below the offset are confirmed.

    Raises:
        TelegramError: There are none to be had: somebody else asks, or a webhook is set.
    """
    body = {"offset": offset, "timeout": seconds, "allowed_updates": KINDS}
    found = _call(settings, "getUpdates", body, ANSWER + seconds)
    return found if isinstance(found, list) else []


def set_webhook(settings: Settings, url: str) -> None:
    """Have updates sent to a URL, with the secret that shows who sends them.

    Raises:
        TelegramError: It was not accepted.
    """
    body = {"url": url, "secret_token": settings.webhook_secret, "allowed_updates": KINDS}
    _call(settings, "setWebhook", body)


def delete_webhook(settings: Settings) -> None:
    """Have updates kept until they are asked for.

    Raises:
        TelegramError: It was not accepted.
    """
    _call(settings, "deleteWebhook", {})


def pause_after(error: TelegramError, attempts: int) -> float | None:
    """Return the seconds to wait before the next try; None: it would not help.

    Args:
        error: Why the last try failed.
        attempts: How many there were before that.
    """
    if error.final or attempts + 1 >= TRIES:
        return None
    return error.retry_after or min(LONGEST_PAUSE, 0.5 * 2 ** min(attempts, 8))


def shortened(text: str, most: int) -> str:
    """Return the beginning of a text, of so many UTF-16 code units at the most."""
    whole = text.encode("utf-16-le", errors="replace")
    if len(whole) <= 2 * most:
        return whole.decode("utf-16-le")
    return whole[: 2 * (most - 2)].decode("utf-16-le", errors="ignore") + "\n…"


def _call(settings: Settings, method: str, body: Mapping[str, Any], seconds: float = ANSWER) -> Any:
    url = f"{settings.telegram_api_base}/bot{settings.telegram_token}/{method}"
    try:
        answer = requests.post(url, json=body, timeout=(CONNECT, seconds))
    except requests.RequestException as error:
        # The exception's text holds the URL, and so the token.
        raise TelegramError(f"{method}: {type(error).__name__}") from None
    data = _json(answer)
    if answer.ok and data.get("ok") is True:
        return data.get("result")
    raise TelegramError(
        f"{method}: {answer.status_code} {str(data.get('description', ''))[:200]}",
        final=answer.status_code in FINAL,
        retry_after=_retry_after(data),
    )


def _retry_after(data: dict[str, Any]) -> float | None:
    parameters = data.get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if not isinstance(wait, int | float) or not math.isfinite(wait) or wait <= 0:
        return None
    return min(float(wait), LONGEST_WAIT)


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        data = answer.json()
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
