"""From an update that Telegram sends to the answer that the Master reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

import psycopg2
import pytest
import requests
from psycopg2 import sql

from sandbox.bot_api import MASTER, BotApi, Trouble
from tests.support import agent, postgres
from tests.support.agent import Running, eventually


@pytest.fixture
def running(migrated_database: str, telegram: BotApi, tmp_path: Path) -> Iterator[Running]:
    settings = agent.environment(migrated_database, telegram.url)
    with agent.running(settings, tmp_path / "agent.log") as found:
        yield found


@pytest.fixture(scope="module")
def guarded(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, str]]:
    """One agent for all that must change nothing, and its database."""
    log = tmp_path_factory.mktemp("guarded") / "agent.log"
    with (
        postgres.scratch(postgres_url, template) as database,
        agent.running(agent.environment(database), log) as found,
    ):
        yield found, database


def message(number: int, text: str, chat: str = MASTER) -> dict[str, Any]:
    return {"update_id": number, "message": {"chat": {"id": int(chat)}, "text": text}}


def states(database: str) -> dict[int, str]:
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        found.execute("select update_id, state from telegram_updates")
        return dict(found.fetchall())


def rows(database: str, where: LiteralString) -> int:
    count = sql.SQL("select count(*) from telegram_updates where {}").format(sql.SQL(where))
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        found.execute(count)
        return int((found.fetchone() or (0,))[0])


def settled(database: str, count: int) -> bool:
    found = states(database)
    return len(found) == count and "new" not in found.values()


def test_the_master_gets_an_answer(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    eventually(lambda: running.get().json()["status"] == "ok")
    assert running.send(message(1, "/status")).json() == {"ok": True, "new": True}
    eventually(lambda: len(telegram.texts()) == 1)
    assert telegram.texts()[0].startswith("ok, version test (0123456)")
    assert telegram.messages[0]["chat_id"] == MASTER
    eventually(lambda: states(migrated_database) == {1: "answered"})
    assert rows(migrated_database, "answered_at >= received_at") == 1


def test_an_update_that_comes_twice_is_answered_once(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    news = [running.send(message(7, "/help")).json()["new"] for _ in range(3)]
    running.send(message(8, "/help"))
    eventually(lambda: settled(migrated_database, 2))
    assert news == [True, False, False]
    assert len(telegram.texts()) == 2


def test_nobody_but_the_master_gets_an_answer(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    running.send(message(1, "/status", chat="666"))
    running.send({"update_id": 2, "callback_query": {"data": "x"}})
    running.send({"update_id": 3, "message": {"chat": {"id": int(MASTER)}, "photo": []}})
    eventually(lambda: settled(migrated_database, 3))
    assert set(states(migrated_database).values()) == {"ignored"}
    assert rows(migrated_database, "answered_at is null") == 3
    assert telegram.texts() == []


def test_a_busy_bot_api_is_asked_again(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    eventually(lambda: running.get().json()["checks"]["telegram"]["status"] == "ok")
    telegram.fail_next(Trouble(429, retry_after=1), Trouble(500), Trouble(502, b"<html>"))
    running.send(message(1, "/help"))
    eventually(lambda: states(migrated_database) == {1: "answered"})
    assert len(telegram.texts()) == 1


def test_a_busy_bot_api_is_left_alone_for_as_long_as_it_asks(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    eventually(lambda: running.get().json()["checks"]["telegram"]["status"] == "ok")
    telegram.fail_next(Trouble(429, retry_after=3000))
    running.send(message(1, "/help"))
    postponed = "attempts = 1 and state = 'new' and next_try_at > received_at + interval '2999 s'"
    eventually(lambda: rows(migrated_database, postponed) == 1)
    assert telegram.texts() == []


def test_what_the_bot_api_refuses_for_good_is_given_up(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    eventually(lambda: running.get().json()["checks"]["telegram"]["status"] == "ok")
    telegram.fail_next(Trouble(403))
    running.send(message(1, "/help"))
    eventually(lambda: states(migrated_database) == {1: "failed"})
    assert telegram.texts() == []


def test_an_update_survives_the_agent(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url)
    telegram.fail_next(*[Trouble(0)] * 3)
    with agent.running(settings, tmp_path / "first.log") as first:
        first.send(message(1, "/help"))
        first.process.kill()
        first.process.wait()
    assert states(migrated_database) == {1: "new"}
    telegram.troubles.clear()
    with agent.running(settings, tmp_path / "second.log"):
        eventually(lambda: states(migrated_database) == {1: "answered"})
    assert len(telegram.texts()) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"update_id": "1"}', 400),
        (b'{"update_id": true}', 400),
        (b'{"update_id": -1}', 400),
        (b'{"update_id": 9223372036854775808}', 400),
        (b'{"update_id": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"update_id": 5, "a": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400),
        (b'{"update_id": 1, "a": "' + b"x" * 300_000 + b'"}', 413),
    ],
)
def test_what_is_no_update_is_refused(
    guarded: tuple[Running, str], body: bytes, status: int
) -> None:
    running, database = guarded
    header = {"X-Telegram-Bot-Api-Secret-Token": agent.SECRET}
    url = f"{running.url}/webhook/telegram"
    assert requests.post(url, data=body, headers=header, timeout=10).status_code == status
    chunks = iter([body]) if body else iter([b" "])
    assert requests.post(url, data=chunks, headers=header, timeout=10).status_code == status
    assert states(database) == {}


def test_odd_text_is_stored_all_the_same(running: Running, migrated_database: str) -> None:
    odd = "\0 \ud800 ' \" \\ <b>&amp;</b> '; drop table telegram_updates; --"
    body = {"update_id": 1, "message": {"chat": {"id": 1}, "text": odd}, "n": 1e400}
    answer = requests.post(
        f"{running.url}/webhook/telegram",
        data=json.dumps(body).replace("Infinity", "1e400"),
        headers={"X-Telegram-Bot-Api-Secret-Token": agent.SECRET},
        timeout=10,
    )
    assert answer.status_code == 200
    eventually(lambda: states(migrated_database) == {1: "ignored"})


@pytest.mark.parametrize("secret", ["", "wrong", agent.SECRET + "x", agent.SECRET[:-1]])
def test_a_wrong_secret_is_refused(guarded: tuple[Running, str], secret: str) -> None:
    running, database = guarded
    assert running.send(message(1, "/help"), secret).status_code == 403
    assert states(database) == {}


def test_a_dead_bot_api_only_degrades(migrated_database: str, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{agent.free_port()}"
    settings = agent.environment(migrated_database, nowhere)
    with agent.running(settings, tmp_path / "agent.log") as found:
        eventually(lambda: found.get().json()["status"] == "degraded")
        assert found.get().status_code == 200
