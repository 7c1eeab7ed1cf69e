"""The agent as a process, as it runs in its container."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from sandbox import bot_api
from sandbox.bot_api import MASTER, TOKEN, BotApi
from tests.support import postgres
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SECRET = "webhook-secret-for-tests"


@dataclass(frozen=True)
class Running:
    """A running agent."""

    url: str
    process: subprocess.Popen[str]
    output: Path

    def get(self, path: str = "/health") -> requests.Response:
        """Ask for a page."""
        return requests.get(self.url + path, timeout=10)

    def send(self, body: object, secret: str = SECRET) -> requests.Response:
        """Send an update as Telegram does."""
        header = {"X-Telegram-Bot-Api-Secret-Token": secret}
        return requests.post(f"{self.url}/webhook/telegram", json=body, headers=header, timeout=10)


def environment(database: str, bot_api: str = "", **more: str) -> dict[str, str]:
    """Return the environment of an agent; without a Bot API, Telegram is disabled."""
    found = {
        "DATABASE_URL": database,
        "TELEGRAM_API_TOKEN": TOKEN if bot_api else "",
        "TELEGRAM_API_BASE": bot_api,
        "MASTER_CHAT_ID": MASTER,
        "TELEGRAM_WEBHOOK_SECRET": SECRET,
        "VCS_REF": "0123456789abcdef",
        "VERSION": "test",
        "HOST": "127.0.0.1",
    }
    return {**found, **more}


@contextmanager
def running(settings: Mapping[str, str], output: Path) -> Iterator[Running]:
    """Run an agent until the block ends; it is up when the block begins.

    What it wrote is shown when the block finds something wrong.
    """
    port = int(settings.get("PORT", "0")) or free_port()
    env = {**os.environ, **settings, "PORT": str(port)}
    with output.open("w") as stream:
        process = subprocess.Popen(
            (sys.executable, "-m", "server_agent"),
            cwd=ROOT,
            env=env,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
        )
    agent = Running(f"http://127.0.0.1:{port}", process, output)
    try:
        eventually(lambda: process.poll() is not None or answers(agent))
        assert process.poll() is None, output.read_text()
        yield agent
    except AssertionError:
        sys.stdout.write(output.read_text())
        raise
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def housed(
    server: str, template: str, output: Path, **more: str
) -> Iterator[tuple[Running, BotApi, str]]:
    """Run an agent with a Bot API and a database of its own until the block ends."""
    with (
        postgres.scratch(server, template) as database,
        bot_api.served(BotApi()) as telegram,
        running(environment(database, telegram.url, **more), output) as found,
    ):
        yield found, telegram, database


def answers(agent: Running) -> bool:
    """Tell whether it answers at all."""
    try:
        agent.get()
    except requests.ConnectionError:
        return False
    return True


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: It did not within those seconds.
    """
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.05)


def migrate(database: str, *words: str) -> str:
    """Run alembic on a database, as the pipeline does."""
    done = subprocess.run(
        (sys.executable, "-m", "alembic", *(words or ("upgrade", "head"))),
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
