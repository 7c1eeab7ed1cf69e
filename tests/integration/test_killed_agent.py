"""The agent killed a hundred times, at any moment, while a thousand updates come in."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise

import pytest
import requests

from sandbox.bot_api import BotApi
from tests.support import agent, postgres
from tests.support.agent import eventually
from tests.support.ports import free_port

EACH = 10  # updates for each life
PAUSE = 0.012  # seconds at most between two updates
# The agent, but for what it imports, which takes longest: so far it is ready beforehand.
READY = "import sys; from server_agent import __main__ as it; sys.stdin.readline(); it.main()"

pytestmark = pytest.mark.slow


@contextmanager
def agents(settings: dict[str, str]) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Give what starts an agent at once, one after the other."""
    with ExitStack() as stack:

        def prepared() -> subprocess.Popen[str]:
            words = (sys.executable, "-c", READY)
            process = stack.enter_context(
                subprocess.Popen(
                    words,
                    cwd=agent.ROOT,
                    env={**os.environ, **settings},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        waiting = deque(prepared() for _ in range(2))

        def start() -> subprocess.Popen[str]:
            waiting.append(prepared())
            process = waiting.popleft()
            assert process.stdin
            process.stdin.write("now\n")
            process.stdin.flush()
            return process

        yield start


def quiet(telegram: BotApi) -> None:
    """Wait until the Bot API is through with what a killed agent asked of it."""
    # Whoever asks for updates ends the question before, and is served after all that came before.
    # By webhook that is refused, and nobody asks.
    url = f"{telegram.url}/bot{telegram.token}/getUpdates"
    requests.post(url, json={"timeout": 0}, timeout=10)
    eventually(lambda: not any("process_request" in it.name for it in threading.enumerate()))


def is_asked(telegram: BotApi, times: int) -> Callable[[], bool]:
    """Return what tells whether it was asked for updates so many times."""
    return lambda: telegram.calls.count("getUpdates") >= times


def has_answered(telegram: BotApi, times: int) -> Callable[[], bool]:
    """Return what tells whether it has accepted so many answers."""
    return lambda: len(telegram.messages) >= times


def is_up(settings: dict[str, str]) -> Callable[[], bool]:
    """Return what tells whether an agent takes what is sent to it."""
    address = ("127.0.0.1", int(settings["PORT"]))

    def takes() -> bool:
        with socket.socket() as door:
            return door.connect_ex(address) == 0

    return takes


@pytest.mark.parametrize(("way", "kills"), [("polling", 100), ("webhook", 30)])
def test_each_update_is_answered_once_however_often_the_agent_is_killed(
    migrated_database: str,
    telegram: BotApi,
    record_property: Callable[[str, object], None],
    way: str,
    kills: int,
) -> None:
    port = str(free_port())
    public = f"http://127.0.0.1:{port}" if way == "webhook" else ""
    settings = agent.environment(migrated_database, telegram.url, PORT=port, PUBLIC_URL=public)
    updates = EACH * kills
    chance = random.Random()  # noqa: S311 - it guards nothing
    commands = iter(range(1, updates + 1))
    ends: list[int] = []  # how many answers had been accepted when an agent was dead
    with agents(settings) as start:
        for count in range(kills):
            asked, answered = telegram.calls.count("getUpdates"), len(telegram.messages)
            # Of what the agents before have left, some or all is answered: else it would pile up.
            wanted = answered + chance.randint(0, max(0, EACH * count - answered))
            process = start()
            eventually(is_up(settings) if public else is_asked(telegram, asked + 1))
            for number in islice(commands, EACH):
                telegram.say(f"/approve {number}")
                time.sleep(chance.uniform(0, PAUSE))
            eventually(has_answered(telegram, wanted))
            process.kill()
            process.wait()
            quiet(telegram)
            ends.append(len(telegram.messages))
        start()
        query = "select state, count(*) from telegram_updates group by state"
        done = [("answered", updates)]
        eventually(lambda: postgres.query(migrated_database, query) == done, 120)
    texts = telegram.texts()
    lives = [texts[begin:end] for begin, end in pairwise([0, *ends, len(texts)])]
    repeated = Counter(texts) - Counter(set(texts))
    record_property("duplicates", repeated.total())
    at_work = sum(end < EACH * count for count, end in enumerate(ends, 1))
    told = f"{repeated.total()} answers came twice; {at_work} of {kills} kills fell amid work"
    print(told)  # noqa: T201 - that figure is asked for
    assert set(texts) == {f"There is no such request: {n}." for n in range(1, updates + 1)}
    # What came twice was accepted last before a kill, which then fell before the commit.
    assert repeated <= Counter(life[-1] for life in lives[:-1] if life)
    assert all(len(set(life)) == len(life) for life in lives)
