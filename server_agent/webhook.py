"""What Telegram sends: checked before any of it is believed."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import AsyncIterator
from typing import Any

LARGEST = 256 * 1024  # bytes of an update
HIGHEST = 2**63 - 1  # what the database's bigint holds


class TooLarge(Exception):  # noqa: N818 - it says what it is
    """The body is larger than any update."""


def authentic(given: str, secret: str) -> bool:
    """Compare in constant time; without a secret nobody is authentic."""
    return bool(secret) and hmac.compare_digest(given.encode(), secret.encode())


async def limited(chunks: AsyncIterator[bytes]) -> bytes:
    """Read a body up to its limit, whatever length it claims.

    Raises:
        TooLarge: It is longer.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > LARGEST:
            raise TooLarge
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
