"""The agent's house: its HTTP side, the loops behind it, and whether they work."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import psycopg2
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from server_agent import budget, proactive, reactive, telegram, updates
from server_agent.model import Model
from server_agent.proactive import Scheduler
from server_agent.reactive import Context
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError
from server_agent.threads import Loop
from server_agent.updates import Intake

T = TypeVar("T")
STOP = 8.0  # seconds the loops get, together, to end their steps
FRESH = 15.0  # seconds between two looks at the Bot API
SOON = 2.0  # the same after a failure
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase} for status in (400, 403, 408, 413, 503)
}

log = logging.getLogger("server_agent.telegram")


class Agent:
    """What the endpoints and the loops share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.database_url)
        self.began = time.monotonic()
        status = "starting" if settings.telegram_api_token else "disabled"
        # How the Bot API was when it was last asked: asking it on demand could hang.
        self.bot: dict[str, Any] = {"status": status, "latency_ms": None}
        self.scheduler = Scheduler(settings, self.store)
        self.model = Model(settings, self.store)
        # Of its own: it asks for the health in the middle of a transaction.
        rows = Store(settings.database_url)
        context = Context(settings, self.store, self.model, self.health)
        self.reactive = Loop("reactive", lambda: reactive.step(rows, context))
        self.proactive = Loop("proactive", self.scheduler.step, proactive.LATE)
        self.telegram = Loop("telegram", self._ask_bot)
        self.intake = Intake(settings, self.store, lambda: self.scheduler.leads, status)
        self.updates = Loop("telegram.updates", self.intake.step)
        self.loops = (self.reactive, self.proactive, self.telegram, self.updates)

    def health(self) -> dict[str, Any]:
        """Return what /health answers."""
        database, periods = measured(
            "database", lambda: self.store.run(lambda it: budget.current(it, self.settings))
        )
        lives = self.updates.status() == "ok"
        role = "leader" if self.scheduler.leads else "standby"
        checks: dict[str, dict[str, Any]] = {
            "database": database,
            "telegram": self.bot,
            "updates": {"status": self.intake.status if lives else "failed"},
            "reactive": {"status": self.reactive.status()},
            "proactive": {"status": self.proactive.status(), "role": role},
        }
        failed = any(check["status"] == "failed" for check in checks.values())
        tokens = budget.told(*periods) if periods else {"status": "unknown"}
        return {
            "status": "down" if not periods else "degraded" if failed else "ok",
            "checks": checks,
            "budget": {**tokens, "process_tokens": self.model.tokens},
            "sha": self.settings.vcs_ref,
            "version": self.settings.version,
            "build_date": self.settings.build_date,
            "uptime_seconds": round(time.monotonic() - self.began, 1),
        }

    def stop(self) -> None:
        """End the loops at their next safe point."""
        for loop in self.loops:
            loop.stop()
        # Not for the updates: the Bot API may let that loop wait, and what it has not stored it
        # has not confirmed.
        ends = time.monotonic() + STOP
        for loop in (self.reactive, self.proactive, self.telegram):
            loop.thread.join(max(0.0, ends - time.monotonic()))

    def _ask_bot(self) -> float:
        if not self.settings.telegram_api_token:
            return FRESH
        self.bot, _ = measured("telegram", lambda: telegram.call(self.settings, "getMe"))
        return FRESH if self.bot["status"] == "ok" else SOON


def measured(name: str, ask: Callable[[], T]) -> tuple[dict[str, Any], T | None]:
    """Ask something; return whether it answered, after how long, and what; None: it did not."""
    began, found = time.monotonic(), None
    try:
        found = ask()
    except (psycopg2.Error, TelegramError) as error:
        logging.getLogger(f"server_agent.{name}").warning("%s cannot be used: %s", name, error)
    status = "failed" if found is None else "ok"
    return {"status": status, "latency_ms": round((time.monotonic() - began) * 1000, 1)}, found


def create_app(settings: Settings) -> FastAPI:
    """Return the ASGI application."""
    agent = Agent(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for loop in agent.loops:
            loop.thread.start()
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
        update = updates.parse(await updates.limited(request.stream()))
        if update is None:
            raise HTTPException(400, "this is no update")
        try:
            new = await run_in_threadpool(updates.save, agent.store, update)
        except psycopg2.Error as error:
            log.warning("an update could not be stored: %s", type(error).__name__)
            raise HTTPException(503, "the database cannot take it now; try again") from None
        return JSONResponse({"ok": True, "new": new})

    return app
