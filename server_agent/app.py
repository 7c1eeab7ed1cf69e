"""The agent's house: its HTTP side, and the loops behind it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import psycopg2
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from server_agent import health, proactive, reactive, webhook
from server_agent.commands import Context
from server_agent.health import TelegramProbe
from server_agent.loop import Loop
from server_agent.model import Model
from server_agent.polling import Intake
from server_agent.proactive import Scheduler
from server_agent.settings import Settings
from server_agent.store import Store

log = logging.getLogger("server_agent.webhook")

STOP = 8.0  # seconds the loops get, together, to end their steps


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
        updates = Store(settings.database_url)
        context = Context(settings, self.store, self.model, self.health)
        self.reactive = Loop("reactive", lambda: reactive.step(updates, context))
        self.proactive = Loop("proactive", self.scheduler.step, proactive.LATE)
        self.telegram = Loop("telegram", self.probe.step)
        self.intake = Intake(settings, self.store, lambda: self.scheduler.leads, self.reactive.wake)
        self.updates = Loop("telegram.updates", self.intake.step)
        self.loops = (self.reactive, self.proactive, self.telegram)

    def health(self) -> dict[str, Any]:
        """Return what /health answers."""
        role = "leader" if self.scheduler.leads else "standby"
        checks: dict[str, dict[str, Any]] = {
            "database": health.database(self.store),
            "telegram": self.probe.status,
            "updates": health.of_updates(self.intake.status, self.updates),
            "reactive": self.reactive.status(),
            "proactive": {**self.proactive.status(), "role": role},
        }
        reachable = checks["database"]["status"] == "ok"
        tokens = health.tokens(self.store, self.settings, reachable=reachable)
        return {
            "status": health.overall(checks),
            "checks": checks,
            "budget": {**tokens, "process_tokens": self.model.tokens},
            "sha": self.settings.sha,
            "version": self.settings.version,
            "build_date": self.settings.build_date,
            "uptime_seconds": round(time.monotonic() - self.began, 1),
        }

    def start(self) -> None:
        """Start the loops."""
        for loop in (*self.loops, self.updates):
            loop.start()

    def stop(self) -> None:
        """End the loops at their next safe point, and give up the lead."""
        for loop in (*self.loops, self.updates):
            loop.stop()
        # Not for the updates: the Bot API may let that loop wait, and what it has not stored it
        # has not confirmed.
        ends = time.monotonic() + STOP
        for loop in self.loops:
            loop.join(max(0.0, ends - time.monotonic()))
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

    @app.post("/webhook/telegram", openapi_extra=webhook.BODY, responses=webhook.REFUSALS)
    async def post_webhook(
        request: Request,
        x_telegram_bot_api_secret_token: Annotated[str, Header()] = "",
    ) -> JSONResponse:
        if not webhook.authentic(x_telegram_bot_api_secret_token, settings.webhook_secret):
            return _refused(403, "wrong secret token")
        try:
            update_id, payload = webhook.parse(await webhook.limited(request.stream()))
            new = await run_in_threadpool(agent.store.save, update_id, payload)
        except webhook.Refused as error:
            return _refused(error.status, str(error))
        except ValueError as error:
            return _refused(400, f"this is no update: {error}"[:200])
        except psycopg2.Error as error:
            log.warning("an update could not be stored: %s", type(error).__name__)
            return _refused(503, "the database cannot take it now; try again")
        agent.reactive.wake()
        return JSONResponse({"ok": True, "new": new})

    return app


def _refused(status: int, why: str) -> JSONResponse:
    return JSONResponse({"ok": False, "error": why}, status_code=status)
