"""The Bot API: two methods, each with a deadline, no token in any error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import requests

from server_agent.settings import Settings

TIMEOUT = (3.0, 5.0)  # seconds to connect, and to wait for the answer
LONGEST = 4096  # https://core.telegram.org/bots/api#sendmessage
LONGEST_WAIT = 3600.0  # seconds; asked to wait for longer, asking again once an hour is civil
FINAL = frozenset({400, 401, 403, 404})


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


def get_me(settings: Settings) -> None:
    """See that the bot exists and its server answers.

    Raises:
        TelegramError: It does not.
    """
    _call(settings, "getMe", {})


def send_message(settings: Settings, chat_id: str, text: str) -> None:
    """Send a plain text.

    Raises:
        TelegramError: It was not accepted.
    """
    _call(settings, "sendMessage", {"chat_id": chat_id, "text": text[:LONGEST]})


def _call(settings: Settings, method: str, body: dict[str, Any]) -> None:
    url = f"{settings.telegram_api_base}/bot{settings.telegram_token}/{method}"
    try:
        answer = requests.post(url, json=body, timeout=TIMEOUT)
    except requests.RequestException as error:
        # The exception's text holds the URL, and so the token.
        raise TelegramError(f"{method}: {type(error).__name__}") from None
    data = _json(answer)
    if answer.ok and data.get("ok") is True:
        return
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
