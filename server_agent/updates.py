"""What Telegram sends: how it comes in, checked before it is believed, and what it says.

Of all releases that run, the leader sees to it that updates come in. With a public address the
Bot API sends them there. Otherwise it is asked for them, and forgets an update when it is asked
for a later one: by then it is stored here, and committed.
"""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import HTTPException
from psycopg2.extensions import cursor
from psycopg2.extras import Json
from pydantic import AfterValidator, Field
from starlette.requests import ClientDisconnect

from server_agent import telegram, web
from server_agent.settings import Settings
from server_agent.store import Queue, Store
from server_agent.telegram import TelegramError
from server_agent.web import Given

LARGEST = 256 * 1024  # bytes of an update
PATIENCE = 10.0  # seconds that a body may take

# Where the description of the interface has what an update is.
PLACE = "#/paths/~1webhook~1telegram/post/requestBody/content/application~1json/schema"
# Without what jsonb refuses, which nobody writes who means well.
Text = Annotated[
    str, AfterValidator(lambda text: text.encode(errors="replace").decode().replace("\0", ""))
]

WAIT = 5  # seconds that the Bot API may keep us waiting
SHORT = 0.2  # seconds between two looks for the lead, and after an empty answer
SET = 5.0  # seconds between two looks once the Bot API sends
PAUSE = 2.0  # seconds after a failure

SAVE = """
insert into telegram_updates (update_id, payload) values (%s, %s) on conflict do nothing
"""
QUEUE = Queue(
    "update",
    next="""
select update_id, attempts, payload, answer from telegram_updates
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

ANSWER = "update telegram_updates set answer = %s where update_id = %s"

log = logging.getLogger("server_agent.telegram.updates")


class Chat(Given):
    """A chat, or who sends."""

    id: int


class Place(Given):
    """A message that has buttons."""

    chat: Chat
    message_id: int = 0


class Message(Place):
    """A text that somebody wrote."""

    sender: Chat | None = Field(None, alias="from")
    text: Text


class Press(Given):
    """A button that somebody pressed."""

    id: Text
    sender: Chat = Field(alias="from")
    message: Place
    data: Text


class Numbered(Given):
    """An update about which no more is known."""

    update_id: int = Field(ge=0, lt=2**63)


class Update(Numbered):
    """What Telegram sends, as far as it is wanted, https://core.telegram.org/bots/api#update."""

    message: Message | None = None
    callback_query: Press | None = None


class Hook(Given):
    """How updates are sent, https://core.telegram.org/bots/api#webhookinfo."""

    url: str
    pending_update_count: int
    last_error_date: int = 0
    last_error_message: str = ""


def described() -> dict[str, Any]:
    """Return what the description of the interface says of an update, which is read as it comes."""
    schema = Update.model_json_schema(ref_template=f"{PLACE}/$defs/{{model}}")
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


def parse(body: bytes) -> Numbered | None:
    """Return the update that a body holds, None when it holds none."""
    return web.read(Update, body) or web.read(Numbered, body)


def save(store: Store, update: Numbered) -> bool:
    """Store what is known of an update; return False when it was there already."""
    payload = Json(update.model_dump(by_alias=True, exclude_none=True))

    def insert(found: cursor) -> bool:
        found.execute(SAVE, (update.update_id, payload))
        return found.rowcount == 1

    return store.run(insert)


def heard(payload: dict[str, Any], master: str) -> Message | Press | None:
    """Return what the Master wrote or pressed; None when it is not him, or nothing to answer."""
    update = web.check(Update, payload)
    said = update and (update.callback_query or update.message)
    if not said:
        return None
    chat = said.message.chat if isinstance(said, Press) else said.chat
    # In a group everybody is the Master; elsewhere a chat has the number of who is in it.
    is_his = chat.id < 0 or said.sender is None or said.sender.id == chat.id
    return said if str(chat.id) == master and is_his else None


@dataclass
class Intake:
    """Has updates sent, or fetches them, while it leads."""

    settings: Settings
    store: Store
    leads: Callable[[], bool]
    status: str
    agreed: bool = False  # whether the Bot API knows how we want them
    offset: int = 0  # the first update that we do not have; 0: we do not know
    failed_at: int = 0  # when an update was last sent in vain, by the clock of the Bot API

    def step(self) -> float:
        """Do what is next; return the seconds to wait before the step after it."""
        if not self.settings.telegram_api_token:
            return SET
        if not self.leads():
            self.agreed, self.offset, self.status = False, 0, "standby"
            return SHORT
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
        if self.settings.public_url:
            return self._see_to_webhook(f"{self.settings.public_url}/webhook/telegram")
        if not self.agreed:
            telegram.call(self.settings, "deleteWebhook")
            log.info("updates are asked for")
            self.agreed = True
        # At once as long as it is not known whether we are let.
        wait = WAIT if self.status == "ok" else 0
        self.offset = self._keep(telegram.get_updates(self.settings, self.offset, wait))
        return 0.0 if self.offset else SHORT

    def _see_to_webhook(self, url: str) -> float:
        """Set the webhook where it is not ours, which its secret tells only by what fails.

        Raises:
            TelegramError: It cannot be seen or set, or what is sent does not arrive.
        """
        hook = web.check(Hook, telegram.call(self.settings, "getWebhookInfo"))
        if hook is None:
            raise TelegramError("getWebhookInfo: what came back is none")
        fails = self.agreed and hook.last_error_date > self.failed_at
        self.failed_at = hook.last_error_date
        if not self.agreed or fails or hook.url != url:
            telegram.set_webhook(self.settings, url)
            log.info("updates are sent to %s", url)
            self.agreed = True
        # Failed stays failed until nothing waits any more.
        if fails or (self.status == "failed" and hook.pending_update_count):
            raise TelegramError(f"what is sent does not arrive: {hook.last_error_message}")
        return SET

    def _keep(self, batch: list[Any]) -> int:
        """Store updates; return the number that follows the last one, 0 without any."""
        known = [web.check(Update, item) or web.check(Numbered, item) for item in batch]
        if None in known:
            log.warning("passed by, no updates: %s of %s", known.count(None), len(known))
        for update in filter(None, known):
            save(self.store, update)
        return max((update.update_id + 1 for update in known if update), default=0)
