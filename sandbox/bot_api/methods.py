"""The methods that there are here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandbox.bot_api import updates
from sandbox.bot_api.given import keyboard, number
from sandbox.bot_api.markup import plain
from sandbox.bot_api.state import BotApi, Refused

BOT = {"id": 123456, "is_bot": True, "first_name": "Test", "username": "test_bot"}
LONGEST = 4096  # UTF-16 code units of a message, after its entities are parsed
LONGEST_TOLD = 200  # characters of the answer to a callback query
SAME = (
    "Bad Request: message is not modified: specified new message content and reply markup are "
    "exactly the same as a current content and reply markup of the message"
)
TOO_OLD = "Bad Request: query is too old and response timeout expired or query ID is invalid"

Method = Callable[[BotApi, dict[str, Any]], Any]


def answer(api: BotApi, method: str, given: dict[str, Any]) -> Any:
    """Return the result of a method.

    Raises:
        Refused: It is not accepted.
    """
    found = METHODS.get(method.lower())
    if found is None:
        raise Refused(404, "Not Found")
    with api.changed:
        return found(api, given)


def get_me(_api: BotApi, _given: dict[str, Any]) -> dict[str, Any]:
    """Return who the bot is."""
    return {**BOT, "can_join_groups": True, "supports_inline_queries": False}


def send_message(api: BotApi, given: dict[str, Any]) -> dict[str, Any]:
    """Take a message, and return it with its number."""
    text, chat, buttons = _text(given), _chat(api, given), keyboard(given)
    message = {**api.heading(chat), "from": BOT, "text": text}
    if buttons:
        message["reply_markup"] = buttons
    api.shown[chat, message["message_id"]] = message
    _accept(api, "sendMessage", chat, message)
    return message


def edit_message_text(api: BotApi, given: dict[str, Any]) -> dict[str, Any]:
    """Replace a message's text and its buttons; without new ones there are none any more."""
    text, chat, buttons = _text(given), _chat(api, given), keyboard(given)
    key = chat, number(given, "message_id", 0)
    if not key[1]:
        raise Refused(400, "Bad Request: message identifier is not specified")
    old = api.shown.get(key)
    if old is None:
        raise Refused(400, "Bad Request: message to edit not found")
    if (old["text"], old.get("reply_markup")) == (text, buttons):
        raise Refused(400, SAME)
    message = {**old, "text": text, "edit_date": old["date"], "reply_markup": buttons}
    if not buttons:
        del message["reply_markup"]
    api.shown[key] = message
    _accept(api, "editMessageText", chat, message)
    return message


def answer_callback_query(api: BotApi, given: dict[str, Any]) -> bool:
    """Tell whoever pressed a button what came of it, once."""
    query, text = str(given.get("callback_query_id", "")), str(given.get("text", ""))
    if query not in api.queries:
        raise Refused(400, TOO_OLD)
    if len(text) > LONGEST_TOLD:
        raise Refused(400, "Bad Request: MESSAGE_TOO_LONG")
    api.queries.remove(query)
    api.accept("answerCallbackQuery", callback_query_id=query, text=text)
    return True


def _accept(api: BotApi, method: str, chat: str, message: dict[str, Any]) -> None:
    kept = {name: message.get(name) for name in ("message_id", "text", "reply_markup")}
    api.accept(method, chat_id=chat, **kept)


def _text(given: dict[str, Any]) -> str:
    text = plain(str(given.get("text", "")), str(given.get("parse_mode") or ""))
    if not text.strip():
        raise Refused(400, "Bad Request: message text is empty")
    if len(text.encode("utf-16-le", "surrogatepass")) // 2 > LONGEST:
        raise Refused(400, "Bad Request: message is too long")
    return text


def _chat(api: BotApi, given: dict[str, Any]) -> str:
    chat = str(given.get("chat_id", ""))
    if not chat:
        raise Refused(400, "Bad Request: chat_id is empty")
    if chat not in api.chats:
        raise Refused(400, "Bad Request: chat not found")
    return chat


METHODS: Mapping[str, Method] = {
    "getme": get_me,
    "sendmessage": send_message,
    "editmessagetext": edit_message_text,
    "answercallbackquery": answer_callback_query,
    "getupdates": updates.get_updates,
    "setwebhook": updates.set_webhook,
    "deletewebhook": updates.delete_webhook,
    "getwebhookinfo": updates.get_webhook_info,
}
