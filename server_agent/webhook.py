"""What Telegram sends: checked before any of it is believed."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect

LARGEST = 256 * 1024  # bytes of an update
HIGHEST = 2**63 - 1  # what the database's bigint holds
PATIENCE = 10.0  # seconds that a body may take

CHAT = {"type": "object", "properties": {"id": {"type": "integer"}}}
MESSAGE = {
    "type": "object",
    "properties": {"message_id": {"type": "integer"}, "chat": CHAT, "text": {"type": "string"}},
}
PRESS = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "from": CHAT,
        "message": MESSAGE,
        "data": {"type": "string"},
    },
}
UPDATE = {
    "type": "object",
    "required": ["update_id"],
    "properties": {
        "update_id": {"type": "integer", "minimum": 0, "maximum": HIGHEST},
        "message": MESSAGE,
        "callback_query": PRESS,
    },
}
# What the description of the interface says of the body, which is read as it comes.
BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": UPDATE}}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "it is no update"},
    403: {"description": "the secret is wrong"},
    408: {"description": "it comes too slowly"},
    413: {"description": "it is too large"},
    503: {"description": "the database cannot take it now"},
}


class Refused(Exception):  # noqa: N818 - it says what it is
    """What came is not taken; `status` is the HTTP status that says so."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def authentic(given: str, secret: str) -> bool:
    """Compare in constant time; without a secret nobody is authentic."""
    return bool(secret) and hmac.compare_digest(given.encode(), secret.encode())


async def limited(chunks: AsyncIterator[bytes], patience: float = PATIENCE) -> bytes:
    """Read a body up to its limit, whatever length it claims.

    Args:
        chunks: What comes of it.
        patience: Seconds that the whole of it may take.

    Raises:
        Refused: It is longer, takes too long, or does not come to its end.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for chunk in chunks:
                body += chunk
                if len(body) > LARGEST:
                    raise Refused(413, "the update is too large")
    except TimeoutError as error:
        raise Refused(408, "the update did not come in time") from error
    except ClientDisconnect as error:
        raise Refused(400, "the update did not come to its end") from error
    return bytes(body)


def parse(body: bytes) -> tuple[int, dict[str, Any]]:
    """Return an update's id and content, fit for the database.

    Raises:
        ValueError: It is no update.
    """
    try:
        return check(json.loads(body, parse_constant=_refuse))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def check(value: Any) -> tuple[int, dict[str, Any]]:
    """Return an update's id and content, fit for the database, given what JSON held.

    Raises:
        ValueError: It is no update.
    """
    number = number_of(value)
    if number is None:
        raise ValueError("no update_id")
    try:
        return number, clean(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def number_of(value: Any) -> int | None:
    """Return an update's id, None when it has none that can be one."""
    number = value.get("update_id") if isinstance(value, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= HIGHEST:
        return None
    return number


def clean(value: Any) -> Any:
    """Return a JSON value without what PostgreSQL's jsonb refuses."""
    if isinstance(value, str):
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\0", "")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
