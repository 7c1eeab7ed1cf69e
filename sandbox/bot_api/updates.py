"""How updates reach the bot: it asks for them, or they are sent to its webhook; never both."""

from __future__ import annotations

import json
import re
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection, responses
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from sandbox.bot_api.given import number, values
from sandbox.bot_api.state import DEFAULT, BotApi, Refused, Webhook

MOST = 100  # updates in an answer
LONGEST = 50  # seconds that a request for updates waits
PATIENCE = 10.0  # seconds that a webhook has for its answer
FIRST_PAUSE = 0.05  # seconds until a webhook that failed is tried again, doubled each time
LONGEST_PAUSE = 2.0
SECRET = re.compile(r"[A-Za-z0-9_-]*")
SET = "Conflict: terminated by setWebhook request"
OTHER = (
    "Conflict: terminated by other getUpdates request; "
    "make sure that only one bot instance is running"
)
ACTIVE = (
    "Conflict: can't use getUpdates method while webhook is active; "
    "use deleteWebhook to delete the webhook first"
)


def get_updates(api: BotApi, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Confirm what is below the offset, and wait for what comes after it.

    Raises:
        Refused: Somebody else hears the updates.
    """
    if api.webhook:
        raise Refused(409, ACTIVE)
    _allow(api, given)
    most = max(1, min(MOST, number(given, "limit", MOST)))
    ends = time.monotonic() + max(0, min(LONGEST, number(given, "timeout", 0)))
    _confirm(api, number(given, "offset", 0))
    mine = api.poll = object()
    api.changed.notify_all()
    while not api.pending and not api.closing.is_set():
        left = ends - time.monotonic()
        if left <= 0:
            break
        api.changed.wait(left)
        if api.webhook:
            raise Refused(409, SET)
        if api.poll is not mine:
            raise Refused(409, OTHER)
    return list(islice(api.pending, most))


def set_webhook(api: BotApi, given: dict[str, Any]) -> bool:
    """Send updates to a URL from now on; an empty one ends it.

    Raises:
        Refused: The URL or the secret is none.
    """
    url, secret = str(given.get("url", "")), str(given.get("secret_token", ""))
    if not url:
        return delete_webhook(api, given)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
    if len(secret) > 256:
        raise Refused(400, "Bad Request: secret token is too long")
    if not SECRET.fullmatch(secret):
        raise Refused(400, "Bad Request: secret token contains unallowed characters")
    _allow(api, given)
    _drop(api, given)
    api.webhook = Webhook(url, secret)
    api.changed.notify_all()
    return True


def delete_webhook(api: BotApi, given: dict[str, Any]) -> bool:
    """Keep updates until they are asked for."""
    _drop(api, given)
    api.webhook = None
    return True


def get_webhook_info(api: BotApi, _given: dict[str, Any]) -> dict[str, Any]:
    """Return where updates go, how many wait, and what went wrong last."""
    hook = api.webhook or Webhook("")
    found: dict[str, Any] = {
        "url": hook.url,
        "has_custom_certificate": False,
        "pending_update_count": len(api.pending),
    }
    if hook.last_error:
        found |= {"last_error_date": hook.last_error_at, "last_error_message": hook.last_error}
    if api.allowed != DEFAULT:
        found["allowed_updates"] = list(api.allowed)
    return found


def deliver(api: BotApi) -> None:
    """Send updates to the webhook until the server closes: in order, each until it is taken."""
    pause = FIRST_PAUSE
    while True:
        with api.changed:
            api.changed.wait_for(lambda: api.closing.is_set() or (api.webhook and api.pending))
            hook = api.webhook
            if api.closing.is_set() or hook is None:
                return
            update = api.pending[0]
        error = _post(hook, update)
        with api.changed:
            if not error and api.pending and api.pending[0] is update:
                api.pending.popleft()
            if error:
                hook.last_error, hook.last_error_at = error, int(time.time())
        if error:
            api.closing.wait(pause)
        pause = min(LONGEST_PAUSE, 2 * pause) if error else FIRST_PAUSE


def _post(hook: Webhook, update: dict[str, Any]) -> str:
    """Send an update; return what went wrong."""
    parts = urlsplit(hook.url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    link = kind(str(parts.hostname), parts.port, timeout=PATIENCE)
    headers = {"Content-Type": "application/json"}
    if hook.secret:
        headers["X-Telegram-Bot-Api-Secret-Token"] = hook.secret
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        link.request("POST", path, json.dumps(update).encode(), headers)
        status = link.getresponse().status
    except ConnectionRefusedError:
        return "Connection refused"
    except (OSError, HTTPException) as error:
        return f"Connection failed: {type(error).__name__}"
    finally:
        link.close()
    if 200 <= status < 300:
        return ""
    return f"Wrong response from the webhook: {status} {responses.get(status, '')}".strip()


def _allow(api: BotApi, given: dict[str, Any]) -> None:
    # Left out, the last list stands; empty, it is the default again.
    if "allowed_updates" in given:
        kinds = [str(item) for item in values(given, "allowed_updates")]
        api.allowed = tuple(kinds) or DEFAULT


def _drop(api: BotApi, given: dict[str, Any]) -> None:
    if str(given.get("drop_pending_updates", "")).lower() in ("true", "1", "yes"):
        api.pending.clear()


def _confirm(api: BotApi, offset: int) -> None:
    while api.pending and (
        len(api.pending) > -offset if offset < 0 else api.pending[0]["update_id"] < offset
    ):
        api.pending.popleft()
