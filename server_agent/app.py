"""The agent's house: its HTTP side, and the loops behind it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import psycopg2
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from server_agent import health, proactive, reactive, updates
from server_agent.health import TelegramProbe
from server_agent.model import Model
from server_agent.proactive import Scheduler
from server_agent.reactive import Context
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.threads import Loop
from server_agent.updates import Intake

STOP = 8.0  # seconds the loops get, together, to end their steps
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "it is no update"},
    403: {"description": "the secret is wrong"},
    408: {"description": "it comes too slowly"},
    413: {"description": "it is too large"},
    503: {"description": "the database cannot take it now"},
}

log = logging.getLogger("server_agent.telegram.webhook")


class Agent:
    """What the endpoints and the loops share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.database_url)
        self.began = time.monotonic()
        self.probe = TelegramProbe(settings)
        self.scheduler = Scheduler(settings)
        self.model = Model(settings, self.store)
        # Of its own: it asks for the health in the middle of a transaction.
        rows = Store(settings.database_url)
        context = Context(settings, self.store, self.model, self.health)
        self.reactive = Loop("reactive", lambda: reactive.step(rows, context))
        self.proactive = Loop("proactive", self.scheduler.step, proactive.LATE)
        self.telegram = Loop("telegram", self.probe.step)
        self.intake = Intake(settings, self.store, lambda: self.scheduler.leads, self.reactive.wake)
        self.updates = Loop("telegram.updates", self.intake.step)
        self.loops = (self.reactive, self.proactive, self.telegram, self.updates)

    def health(self) -> dict[str, Any]:
        """Return what /health answers."""
        database = health.database(self.store)
        lives = self.updates.status()["status"] == "ok"
        role = "leader" if self.scheduler.leads else "standby"
        checks: dict[str, dict[str, Any]] = {
            "database": database,
            "telegram": self.probe.status,
            "updates": {"status": self.intake.status if lives else "failed"},
            "reactive": self.reactive.status(),
            "proactive": {**self.proactive.status(), "role": role},
        }
        # A database that has not answered just now is not waited for once more.
        reachable = database["status"] == "ok"
        tokens = health.tokens(self.store, self.settings) if reachable else {"status": "unknown"}
        return {
            "status": health.overall(checks),
            "checks": checks,
            "budget": {**tokens, "process_tokens": self.model.tokens},
            "sha": self.settings.vcs_ref,
            "version": self.settings.version,
            "build_date": self.settings.build_date,
            "uptime_seconds": round(time.monotonic() - self.began, 1),
        }

    def start(self) -> None:
        """Start the loops."""
        for loop in self.loops:
            loop.thread.start()

    def stop(self) -> None:
        """End the loops at their next safe point, and give up the lead."""
        for loop in self.loops:
            loop.stop()
        # Not for the updates: the Bot API may let that loop wait, and what it has not stored it
        # has not confirmed.
        ends = time.monotonic() + STOP
        for loop in (self.reactive, self.proactive, self.telegram):
            loop.thread.join(max(0.0, ends - time.monotonic()))
        self.scheduler.close()


def create_app(settings: Settings) -> FastAPI:
    """Return the ASGI application."""
    agent = Agent(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        agent.start()
        yield
        await run_in_threadpool(agent.stop)

    # The pages that show the description load scripts from elsewhere.
    app = FastAPI(
        title="Server Agent vNext",
        version=settings.version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    @app.get("/health", responses={503: {"description": "it does not work"}})
    def get_health() -> JSONResponse:
        found = agent.health()
        return JSONResponse(found, status_code=503 if found["status"] == "down" else 200)

    @app.post("/webhook/telegram", openapi_extra=updates.described(), responses=REFUSALS)
    async def post_webhook(
        request: Request, x_telegram_bot_api_secret_token: Annotated[str, Header()] = ""
    ) -> JSONResponse:
        if not updates.authentic(x_telegram_bot_api_secret_token, settings.telegram_webhook_secret):
            raise HTTPException(403, "wrong secret token")
        try:
            update_id, payload = updates.parse(await updates.limited(request.stream()))
            new = await run_in_threadpool(updates.save, agent.store, update_id, payload)
        except ValueError as error:
            raise HTTPException(400, f"this is no update: {error}"[:200]) from None
        except psycopg2.Error as error:
            log.warning("an update could not be stored: %s", type(error).__name__)
            raise HTTPException(503, "the database cannot take it now; try again") from None
        agent.reactive.wake()
        return JSONResponse({"ok": True, "new": new})

    return app
