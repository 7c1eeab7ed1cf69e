"""What Telegram sends: how it comes in, checked before it is believed, and what it says.

Of all releases that run, the leader sees to it that updates come in. With a public address the
Bot API sends them there. Otherwise it is asked for them, and forgets an update when it is asked
for a later one: by then it is stored here, and committed.
"""

import asyncio
import hmac
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import psycopg2
from fastapi import HTTPException
from psycopg2.extras import Json
from starlette.requests import ClientDisconnect

from server_agent import telegram
from server_agent.settings import Settings
from server_agent.store import Queue, Store
from server_agent.telegram import TelegramError

LARGEST = 256 * 1024  # bytes of an update
HIGHEST = 2**63 - 1  # what the database's bigint holds
PATIENCE = 10.0  # seconds that a body may take

WAIT = 5  # seconds that the Bot API may keep us waiting
STANDBY = 0.2  # seconds between two looks for the lead
SET = 1.0  # seconds between two looks once the Bot API sends
EMPTY = 0.2  # seconds after an answer with nothing in it, which should have taken long
PAUSE = 2.0  # seconds after a failure

SAVE = """
insert into telegram_updates (update_id, payload) values (%s, %s) on conflict do nothing
"""
QUEUE = Queue(
    "update",
    next="""
select update_id, attempts, payload from telegram_updates
where state = 'new' and next_try_at <= now()
order by update_id limit 1 for update skip locked
""",
    settle="""
update telegram_updates set state = %(state)s, attempts = attempts + 1,
    next_try_at = now() + make_interval(secs => %(pause)s),
    answered_at = case when %(state)s = 'answered' then now() end
where update_id = %(id)s
""",
)

log = logging.getLogger("server_agent.telegram.updates")


@dataclass(frozen=True)
class Event:
    """A text that the Master wrote, or the data of a button that he pressed."""

    text: str
    press: str = ""  # the press's id; empty: he wrote
    message: int = 0  # the number of the message with that button


def described() -> dict[str, Any]:
    """Return what the description of the interface says of an update, which is read as it comes."""

    def thing(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties}

    text, number = {"type": "string"}, {"type": "integer"}
    chat = thing(id=number)
    message = thing(message_id=number, chat=chat, text=text)
    press = thing(**{"id": text, "from": chat, "message": message, "data": text})
    known = {**number, "minimum": 0, "maximum": HIGHEST}
    update = thing(update_id=known, message=message, callback_query=press)
    schema = {**update, "required": ["update_id"]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def authentic(given: str, secret: str) -> bool:
    """Compare in constant time; without a secret nobody is authentic."""
    return bool(secret) and hmac.compare_digest(given.encode(), secret.encode())


async def limited(chunks: AsyncIterator[bytes], patience: float = PATIENCE) -> bytes:
    """Read a body up to its limit, whatever length it claims.

    Raises:
        HTTPException: It is longer, takes more seconds, or does not come to its end.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for chunk in chunks:
                body += chunk
                if len(body) > LARGEST:
                    raise HTTPException(413, "the update is too large")
    except TimeoutError:
        raise HTTPException(408, "the update did not come in time") from None
    except ClientDisconnect:
        raise HTTPException(400, "the update did not come to its end") from None
    return bytes(body)


def parse(body: bytes) -> tuple[int, dict[str, Any]]:
    """Return an update's id and content, fit for the database; else raise a ValueError."""
    try:
        return check(json.loads(body))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check(value: Any) -> tuple[int, dict[str, Any]]:
    """Do the same with what JSON held."""
    number = number_of(value)
    if number is None:
        raise ValueError("no update_id")
    try:
        return number, clean(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def number_of(value: Any) -> int | None:
    """Return an update's id, None when it has none that can be one."""
    number = value.get("update_id") if isinstance(value, dict) else None
    return number if type(number) is int and 0 <= number <= HIGHEST else None


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


def save(store: Store, update_id: int, payload: dict[str, Any]) -> bool:
    """Store an update; return False when it was there already."""
    return store.run(SAVE, update_id, Json(payload)) == 1


def read(payload: dict[str, Any], master: str) -> Event | None:
    """Return what the Master said or pressed; None when it is not him, or nothing to answer."""
    try:
        press = payload.get("callback_query")
        message = press["message"] if press else payload["message"]
        chat, sender = message["chat"], (press or message).get("from") or {}
        is_his = chat.get("type") != "private" or str(sender.get("id")) == master
        text = press["data"] if press else message["text"]
        number = message.get("message_id")
        press_id = str(press.get("id")) if press else ""
        chat_id = str(chat["id"])
    except (KeyError, TypeError, AttributeError):
        return None
    if not master or chat_id != master or not is_his or not isinstance(text, str):
        return None
    return Event(text, press_id, number if press and isinstance(number, int) else 0)


@dataclass
class Intake:
    """Has updates sent, or fetches them, while it leads."""

    settings: Settings
    store: Store
    leads: Callable[[], bool]
    arrived: Callable[[], None]
    status: str
    agreed: bool = False  # whether the Bot API knows how we want them
    offset: int = 0  # the first update that we do not have; 0: we do not know

    def step(self) -> float:
        """Do what is next; return the seconds to wait before the step after it."""
        if not self.settings.telegram_api_token:
            return SET
        if not self.leads():
            self.agreed, self.offset, self.status = False, 0, "standby"
            return STANDBY
        try:
            pause = self._lead()
        except TelegramError as error:
            if self.status != "failed":  # a word for each outage, not for each try
                log.warning("updates do not come in: %s", error.why)
            self.status = "failed"
            return error.retry_after or PAUSE
        self.status = "ok"
        return pause

    def _lead(self) -> float:
        public = self.settings.public_url
        if not self.agreed:
            if public:
                telegram.set_webhook(self.settings, f"{public}/webhook/telegram")
            else:
                telegram.call(self.settings, "deleteWebhook")
            log.info("updates are %s", f"sent to {public}" if public else "asked for")
            self.agreed = True
        if public:
            return SET
        # At once as long as it is not known whether we are let.
        wait = WAIT if self.status == "ok" else 0
        self.offset = self._keep(telegram.get_updates(self.settings, self.offset, wait))
        return 0.0 if self.offset else EMPTY

    def _keep(self, batch: list[Any]) -> int:
        """Store updates; return the number that follows the last one, 0 without any."""
        numbers = [number_of(item) for item in batch]
        for number, item in zip(numbers, batch, strict=True):
            try:
                save(self.store, *check(item))
            except (ValueError, psycopg2.DataError) as error:
                why = str(error)[:200]
                log.warning("update %s is passed by, it is no update: %s", number, why)
        if batch:
            self.arrived()
        return max((number + 1 for number in numbers if number is not None), default=0)
