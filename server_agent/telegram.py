"""The Bot API: each method has a deadline, and raises a TelegramError, which holds no token."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import AliasPath, Field

from server_agent import web
from server_agent.settings import Settings
from server_agent.web import Failed, Given

ANSWER = 5.0  # seconds
LONGEST = 4096  # UTF-16 code units, https://core.telegram.org/bots/api#sendmessage
LONGEST_TOLD = 200  # the same of a callback's answer
LONGEST_WAIT = 3600.0  # seconds; asked to wait for longer, asking again once an hour is civil
FINAL = frozenset({400, 401, 403, 404})
TRIES = 60  # with the pauses between them about an hour
LONGEST_PAUSE = 60.0  # seconds
BATCH = 20  # updates at once: of the largest, with what they reply to, less than web.LARGEST
KINDS = ("message", "callback_query")  # the updates that we want


@dataclass(eq=False)
class TelegramError(Exception):
    """The Bot API did not do what it was asked."""

    why: str
    final: bool = False  # whether trying again cannot help
    retry_after: float = 0.0  # seconds it wants to be left alone


class Reply(Given):
    """What the Bot API says, https://core.telegram.org/bots/api#making-requests."""

    ok: bool = False
    error_code: int = 0
    result: Any = None
    description: str = ""
    wait: float = Field(
        0.0, ge=0, allow_inf_nan=False, validation_alias=AliasPath("parameters", "retry_after")
    )


def call(
    settings: Settings, method: str, body: Mapping[str, Any] = {}, seconds: float = ANSWER
) -> Any:
    """Call a method of the Bot API; return its result."""
    if not settings.telegram_api_token:
        raise TelegramError(f"{method}: TELEGRAM_API_TOKEN is not set", final=True)
    url = f"{settings.telegram_api_base}/bot{settings.telegram_api_token}/{method}"
    try:
        reply = web.read(Reply, web.exchange("POST", url, seconds, json.dumps(body).encode()))
    except Failed as error:
        said = web.read(Reply, error.body) or Reply()
        raise TelegramError(
            f"{method}: {error.why} {said.description[:200]}".rstrip(),
            # A proxy on the way may say the same, but not for long.
            final=error.status in FINAL and said.error_code == error.status,
            retry_after=min(said.wait, LONGEST_WAIT),
        ) from None
    if reply is None or not reply.ok:
        raise TelegramError(f"{method}: what came back is no answer of the Bot API")
    return reply.result


def send_message(
    settings: Settings, chat_id: str, text: str, buttons: Mapping[str, str] = {}
) -> int:
    """Send a plain text; return the message's number.

    Below it is a row of buttons: what stands on each, and what comes back (64 bytes at most).
    """
    row = [{"text": name, "callback_data": data} for name, data in buttons.items()]
    keyboard = {"reply_markup": {"inline_keyboard": [row]}} if buttons else {}
    body = {"chat_id": chat_id, "text": shortened(text, LONGEST), **keyboard}
    found = call(settings, "sendMessage", body)
    number = found.get("message_id") if isinstance(found, Mapping) else None
    return number if isinstance(number, int) else 0


def edit_message(settings: Settings, chat_id: str, number: int, text: str) -> None:
    """Replace the text of a message that we sent, and take its buttons away."""
    body = {"chat_id": chat_id, "message_id": number, "text": shortened(text, LONGEST)}
    call(settings, "editMessageText", body)


def answer_callback(settings: Settings, identity: str, text: str) -> None:
    """Tell whoever pressed a button what came of it; after some minutes that is refused."""
    body = {"callback_query_id": identity, "text": shortened(text, LONGEST_TOLD)}
    call(settings, "answerCallbackQuery", body)


def get_updates(settings: Settings, offset: int, seconds: int) -> list[Any]:
    """Wait for updates, so many seconds at the most; those below the offset are confirmed."""
    body = {"offset": offset, "limit": BATCH, "timeout": seconds, "allowed_updates": KINDS}
    return list(call(settings, "getUpdates", body, ANSWER + seconds))


def set_webhook(settings: Settings, url: str) -> None:
    """Have updates sent to a URL, with the secret that shows who sends them."""
    secret = settings.telegram_webhook_secret
    call(settings, "setWebhook", {"url": url, "secret_token": secret, "allowed_updates": KINDS})


def pause_after(error: TelegramError, attempts: int) -> float | None:
    """Return the seconds until the next try, given how many came before; None: it is no use."""
    if error.final or attempts + 1 >= TRIES:
        return None
    return error.retry_after or min(LONGEST_PAUSE, 0.5 * 2 ** min(attempts, 8))


def shortened(text: str, most: int) -> str:
    """Return the beginning of a text, of so many UTF-16 code units at the most, without NUL."""
    whole = text.replace("\0", "").encode("utf-16-le", errors="replace")
    if len(whole) <= 2 * most:
        return whole.decode("utf-16-le")
    return whole[: 2 * (most - 2)].decode("utf-16-le", errors="ignore") + "\n…"
