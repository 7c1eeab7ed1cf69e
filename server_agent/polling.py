"""Where updates come from: of all releases that run, the leader sees to it.

With a public address the Bot API sends them there. Otherwise it is asked for them, and forgets
an update when it is asked for a later one: by then it is stored here, and committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import psycopg2

from server_agent import telegram, webhook
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError

WAIT = 5  # seconds that the Bot API may keep us waiting
STANDBY = 0.2  # seconds between two looks for the lead
SET = 1.0  # seconds between two looks once the Bot API sends
EMPTY = 0.2  # seconds after an answer with nothing in it, which should have taken long
PAUSE = 2.0  # seconds after a failure

log = logging.getLogger("server_agent.telegram.updates")


class Intake:
    """Has updates sent, or fetches them, while it leads."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        leads: Callable[[], bool],
        arrived: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._leads = leads
        self._arrived = arrived
        self._agreed = False  # whether the Bot API knows how we want them
        self._offset = 0  # the first update that we do not have; 0: we do not know
        self.status = "starting" if settings.telegram_token else "disabled"

    def step(self) -> float:
        """Do what is next; return the seconds to wait before the step after it.

        Raises:
            psycopg2.Error: The database is gone; nothing was confirmed.
        """
        if not self._settings.telegram_token:
            return SET
        if not self._leads():
            self._agreed, self._offset, self.status = False, 0, "standby"
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
        if not self._agreed:
            self._agree()
        if self._settings.public_url:
            return SET
        # At once as long as it is not known whether we are let.
        wait = WAIT if self.status == "ok" else 0
        self._offset = self._keep(telegram.get_updates(self._settings, self._offset, wait))
        return 0.0 if self._offset else EMPTY

    def _agree(self) -> None:
        if self._settings.public_url:
            url = f"{self._settings.public_url}/webhook/telegram"
            telegram.set_webhook(self._settings, url)
            log.info("updates are sent to %s", url)
        else:
            telegram.delete_webhook(self._settings)
            log.info("updates are asked for")
        self._agreed = True

    def _keep(self, batch: list[Any]) -> int:
        """Store updates; return the number that follows the last one, 0 without any."""
        following = 0
        for item in batch:
            number = webhook.number_of(item)
            following = max(following, 0 if number is None else number + 1)
            try:
                self._store.save(*webhook.check(item))
            except (ValueError, psycopg2.DataError) as error:
                why = str(error)[:200]
                log.warning("update %s is passed by, it is no update: %s", number, why)
        if batch:
            self._arrived()
        return following
