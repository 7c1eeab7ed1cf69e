"""What a call was given, as JSON or as a form; a form holds lists and objects as JSON texts."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from sandbox.bot_api.state import Refused


def read(kind: str, body: bytes) -> dict[str, Any]:
    """Return what a body gives.

    Args:
        kind: Its content type.
        body: The bytes.

    Raises:
        Refused: It cannot be read.
    """
    try:
        text = body.decode()
        if "json" not in kind:
            return {key: item[-1] for key, item in parse_qs(text).items()}
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "Bad Request: can't parse JSON object")
    return found


def number(given: dict[str, Any], name: str, default: int) -> int:
    """Return a whole number; what is none counts as 0, as the real one has it."""
    if given.get(name) is None:
        return default
    try:
        return int(given[name])
    except (ValueError, TypeError):
        return 0


def values(given: dict[str, Any], name: str) -> list[Any]:
    """Return a list.

    Raises:
        Refused: It is none.
    """
    found = _parsed(given.get(name))
    if not isinstance(found, list):
        raise Refused(400, f"Bad Request: can't parse {name} JSON object")
    return found


def keyboard(given: dict[str, Any]) -> dict[str, Any] | None:
    """Return the buttons that go below a message, None when there are none.

    Raises:
        Refused: The Bot API would not have them.
    """
    found = _parsed(given.get("reply_markup"))
    if found is None or found == "":
        return None
    rows = found.get("inline_keyboard") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise Refused(400, "Bad Request: object expected as reply markup")
    kept = [[_button(item) for item in row] for row in rows if row]
    return {"inline_keyboard": kept} if kept else None


def _button(item: Any) -> dict[str, str]:
    if not isinstance(item, dict) or not item.get("text"):
        raise Refused(400, "Bad Request: can't parse inline keyboard button: Text is empty")
    data = item.get("callback_data")
    if not isinstance(data, str):
        why = "Text buttons are unallowed in the inline keyboard"
        raise Refused(400, f"Bad Request: can't parse inline keyboard button: {why}")
    if not 1 <= len(data.encode(errors="surrogatepass")) <= 64:
        raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
    return {"text": str(item["text"]), "callback_data": data}


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
