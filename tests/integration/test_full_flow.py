"""From an update that Telegram sends to the answer that the Master reads."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import pytest
import requests
from psycopg2 import sql

from sandbox.bot_api import MASTER, BotApi, Trouble
from tests.support import agent, postgres
from tests.support.agent import Running, eventually
from tests.support.ports import free_port


@pytest.fixture(params=["polling", "webhook"])
def running(
    request: pytest.FixtureRequest, migrated_database: str, telegram: BotApi, tmp_path: Path
) -> Iterator[Running]:
    """An agent that asks for its updates, or has them sent."""
    port = free_port()
    more = {"PUBLIC_URL": f"http://127.0.0.1:{port}"} if request.param == "webhook" else {}
    settings = agent.environment(migrated_database, telegram.url, PORT=str(port), **more)
    with agent.running(settings, tmp_path / "agent.log") as found:
        yield found


@pytest.fixture
def polling(migrated_database: str, telegram: BotApi, tmp_path: Path) -> Iterator[Running]:
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


UNSEAT = """
select pg_terminate_backend(pid) from pg_locks
where locktype = 'advisory' and granted
    and database = (select oid from pg_database where datname = current_database())
"""


def message(number: int, text: str, chat: str = MASTER) -> dict[str, Any]:
    return {"update_id": number, "message": {"chat": {"id": int(chat)}, "text": text}}


def comes(telegram: BotApi, *updates: dict[str, Any]) -> None:
    """Have updates come in just as they are."""
    with telegram.changed:
        telegram.pending.extend(updates)
        telegram.changed.notify_all()


def states(database: str) -> dict[int, str]:
    return dict(postgres.query(database, "select update_id, state from telegram_updates"))


def rows(database: str, where: LiteralString) -> int:
    count = sql.SQL("select count(*) from telegram_updates where {}").format(sql.SQL(where))
    return int(postgres.query(database, count)[0][0])


def settled(database: str, count: int) -> bool:
    found = states(database)
    return len(found) == count and "new" not in found.values()


def checks(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = running.get().json()["checks"]
    return found


def updates(running: Running) -> str:
    return str(checks(running)["updates"]["status"])


def test_the_master_gets_an_answer(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    eventually(lambda: running.get().json()["status"] == "ok" and updates(running) == "ok")
    number = telegram.say("/status")
    eventually(lambda: len(telegram.texts()) == 1)
    assert telegram.texts()[0].startswith("ok, version test (0123456)")
    assert telegram.messages[0]["chat_id"] == MASTER
    eventually(lambda: states(migrated_database) == {number: "answered"})
    assert rows(migrated_database, "answered_at >= received_at") == 1


def test_an_update_that_comes_twice_is_answered_once(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    comes(telegram, message(7, "/help"), message(7, "/help"), message(8, "/help"))
    eventually(lambda: settled(migrated_database, 2))
    news = [running.send(message(7, "/help")).json()["new"] for _ in range(2)]
    running.send(message(9, "/help"))
    eventually(lambda: settled(migrated_database, 3))
    assert news == [False, False]
    assert len(telegram.texts()) == 3


def test_nobody_but_the_master_gets_an_answer(
    running: Running, telegram: BotApi, migrated_database: str
) -> None:
    stranger = telegram.say("/status", chat="666")
    telegram.press(1, "approve:1:0123456789abcdef", chat="666")
    comes(
        telegram,
        {"update_id": 13, "message": {"chat": {"id": int(MASTER)}, "photo": []}},
        {"update_id": 14, "callback_query": {"data": "x"}},
    )
    eventually(lambda: settled(migrated_database, 4))
    assert set(states(migrated_database).values()) == {"ignored"}
    assert rows(migrated_database, "answered_at is null") == 4
    assert telegram.accepted == []
    assert f"update {stranger} is not from the Master" in running.output.read_text()


def test_the_last_deployments_are_told(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url, FACTS_DIR=str(tmp_path))
    record = {"kind": "deploy", "ref": "main", "sha": "89abcdef" * 5, "outcome": "success"}
    more = {"started": "2026-11-25T12:03:05+00:00", "code": 0, "seconds": 61, "who": "ann"}
    (tmp_path / "history.json").write_text(json.dumps([record | more]))
    with agent.running(settings, tmp_path / "agent.log"):
        telegram.say("/deployments")
        eventually(lambda: len(telegram.texts()) == 1)
    assert "deploy main (89abcde): success" in telegram.texts()[0]


def test_a_busy_bot_api_is_asked_again(
    polling: Running, telegram: BotApi, migrated_database: str
) -> None:
    busy = Trouble(429, retry_after=1), Trouble(500), Trouble(502, b"<html>")
    telegram.fail_next(*(replace(item, method="sendMessage") for item in busy))
    number = telegram.say("/help")
    eventually(lambda: states(migrated_database) == {number: "answered"})
    assert len(telegram.texts()) == 1
    assert rows(migrated_database, "attempts = 4") == 1


def test_a_busy_bot_api_is_left_alone_for_as_long_as_it_asks(
    polling: Running, telegram: BotApi, migrated_database: str
) -> None:
    telegram.fail_next(Trouble(429, retry_after=3000, method="sendMessage"))
    telegram.say("/help")
    postponed = "attempts = 1 and state = 'new' and next_try_at > received_at + interval '2999 s'"
    eventually(lambda: rows(migrated_database, postponed) == 1)
    assert telegram.texts() == []


def test_what_the_bot_api_refuses_for_good_is_given_up(
    polling: Running, telegram: BotApi, migrated_database: str
) -> None:
    telegram.fail_next(Trouble(403, method="sendMessage"))
    first, second = telegram.say("/help"), telegram.say("/help")
    eventually(lambda: states(migrated_database) == {first: "failed", second: "answered"})
    assert len(telegram.texts()) == 1


def test_an_update_survives_the_agent(
    running: Running, migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    telegram.fail_next(Trouble(0, method="sendMessage"))
    number = telegram.say("/help")
    eventually(lambda: not telegram.troubles)
    running.process.kill()
    running.process.wait()
    assert states(migrated_database) == {number: "new"}
    settings = agent.environment(migrated_database, telegram.url)
    with agent.running(settings, tmp_path / "second.log"):
        eventually(lambda: states(migrated_database) == {number: "answered"})
    assert len(telegram.texts()) == 1


def test_only_what_is_stored_is_confirmed(
    empty_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(empty_database, telegram.url)
    number = telegram.say("/help")
    with agent.running(settings, tmp_path / "agent.log") as found:
        # There is no lead without tables either, but there is one before they vanish.
        agent.migrate(empty_database)
        eventually(lambda: states(empty_database) == {number: "answered"})
        away = "alter table telegram_updates rename to away"
        postgres.query(empty_database, away)
        telegram.say("/help")
        asked = telegram.calls.count("getUpdates")
        eventually(lambda: telegram.calls.count("getUpdates") > asked + 2)
        assert updates(found) == "failed"
        assert [item["update_id"] for item in telegram.pending] == [number + 1]
        postgres.query(empty_database, "alter table away rename to telegram_updates")
        eventually(lambda: states(empty_database).get(number + 1) == "answered")
        eventually(lambda: not telegram.pending)
    assert len(telegram.texts()) == 2


def test_what_is_no_update_is_passed_by(
    polling: Running, telegram: BotApi, migrated_database: str
) -> None:
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    garbage = b'{"ok": true, "result": [3, "x", null, {"update_id": "7"}, {"update_id": true}]}'
    telegram.fail_next(
        Trouble(200, garbage, method="getUpdates"),
        Trouble(200, b'{"ok": true, "result": {}}', method="getUpdates"),
        Trouble(200, b"[" * 100_000, method="getUpdates"),
    )
    comes(telegram, {"update_id": 5, "message": deep}, message(6, "/help"))
    eventually(lambda: states(migrated_database) == {5: "ignored", 6: "answered"})
    eventually(lambda: not telegram.pending)
    assert "passed by, no updates: 5 of 5" in polling.output.read_text()


def test_a_backlog_of_the_largest_updates_comes_in(
    polling: Running, telegram: BotApi, migrated_database: str
) -> None:
    eventually(lambda: updates(polling) == "ok")
    said = {"chat": {"id": 666}, "text": "😀" * 4096}
    large = [{"update_id": n, "message": {**said, "reply_to_message": said}} for n in range(1, 101)]
    comes(telegram, *large, message(101, "/help"))
    eventually(lambda: settled(migrated_database, 101))
    assert len(telegram.texts()) == 1


def test_while_somebody_else_hears_the_updates_it_says_so(
    polling: Running, telegram: BotApi
) -> None:
    eventually(lambda: updates(polling) == "ok")
    bot = f"{telegram.url}/bot{telegram.token}"
    requests.post(f"{bot}/setWebhook", json={"url": "http://127.0.0.1:9/"}, timeout=10)
    eventually(lambda: updates(polling) == "failed")
    found = polling.get()
    assert (found.status_code, found.json()["status"]) == (200, "degraded")
    telegram.say("/help")
    requests.post(f"{bot}/deleteWebhook", timeout=10)
    eventually(lambda: updates(polling) == "ok")
    eventually(lambda: len(telegram.texts()) == 1)
    assert "Conflict" in polling.output.read_text()


def hook(telegram: BotApi) -> tuple[str, str]:
    return (telegram.webhook.url, telegram.webhook.secret) if telegram.webhook else ("", "")


def test_a_webhook_is_set_once_by_whoever_leads(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    telegram.fail_next(Trouble(500, method="setWebhook"))
    settings = agent.environment(migrated_database, telegram.url)
    polls = agent.running(settings, tmp_path / "first.log")
    port = free_port()
    public = {"PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}/"}
    with polls as first:
        eventually(lambda: updates(first) == "ok")
        with agent.running({**settings, **public}, tmp_path / "second.log") as second:
            eventually(lambda: updates(second) == "standby")
            assert hook(telegram) == ("", "")
            first.process.kill()
            eventually(lambda: updates(second) == "ok")
            url = f"http://127.0.0.1:{port}/webhook/telegram"
            assert hook(telegram) == (url, agent.SECRET)
            telegram.say("/help")
            eventually(lambda: len(telegram.texts()) == 1)
            assert telegram.calls.count("setWebhook") == 1
        with agent.running(settings, tmp_path / "third.log"):
            telegram.say("/approve")
            eventually(lambda: telegram.texts()[-1].startswith("Say which request"))
            assert len(telegram.texts()) == 2
    assert telegram.calls.count("deleteWebhook") == 2


def test_a_lead_that_was_lost_begins_anew(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url)
    port = free_port()
    public = {"PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
    with (
        agent.running({**settings, **public}, tmp_path / "first.log") as first,
        ExitStack() as more,
    ):
        eventually(lambda: hook(telegram)[0].startswith(public["PUBLIC_URL"]))
        second = more.enter_context(agent.running(settings, tmp_path / "second.log"))
        first.process.send_signal(signal.SIGSTOP)
        postgres.query(migrated_database, UNSEAT)
        eventually(lambda: updates(second) == "ok" and hook(telegram) == ("", ""))
        first.process.send_signal(signal.SIGCONT)
        eventually(lambda: updates(first) == "standby")
        second.process.kill()
        eventually(lambda: hook(telegram)[0].startswith(public["PUBLIC_URL"]))


def test_a_webhook_that_somebody_changed_is_set_again(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    port = free_port()
    ours = f"http://127.0.0.1:{port}"
    settings = agent.environment(migrated_database, telegram.url, PORT=str(port), PUBLIC_URL=ours)
    with agent.running(settings, tmp_path / "agent.log") as found:
        eventually(lambda: updates(found) == "ok")
        change(telegram, "deleteWebhook")
        telegram.say("/help")
        eventually(lambda: len(telegram.texts()) == 1)
        change(telegram, "setWebhook", url=f"{ours}/webhook/telegram", secret_token="other")
        telegram.say("/help")
        eventually(lambda: updates(found) == "failed")
        eventually(lambda: len(telegram.texts()) == 2)
        eventually(lambda: updates(found) == "ok")
    assert hook(telegram) == (f"{ours}/webhook/telegram", agent.SECRET)
    assert "403 Forbidden" in (tmp_path / "agent.log").read_text()


def change(telegram: BotApi, method: str, **given: str) -> None:
    requests.post(f"{telegram.url}/bot{telegram.token}/{method}", json=given, timeout=10)


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


def test_odd_text_is_stored_all_the_same(guarded: tuple[Running, str]) -> None:
    running, database = guarded
    odd = "\0 \ud800 ' \" \\ <b>&amp;</b> '; drop table telegram_updates; --"
    body = {"update_id": 1, "message": {"chat": {"id": 1}, "text": odd}, "n": 1e400}
    answer = requests.post(
        f"{running.url}/webhook/telegram",
        data=json.dumps(body).replace("Infinity", "1e400"),
        headers={"X-Telegram-Bot-Api-Secret-Token": agent.SECRET},
        timeout=10,
    )
    assert answer.status_code == 200
    eventually(lambda: states(database) == {1: "ignored"})
    postgres.query(database, "delete from telegram_updates")


@pytest.mark.parametrize("secret", ["", "wrong", agent.SECRET + "x", agent.SECRET[:-1]])
def test_a_wrong_secret_is_refused(guarded: tuple[Running, str], secret: str) -> None:
    running, database = guarded
    assert running.send(message(1, "/help"), secret).status_code == 403
    assert states(database) == {}


def test_a_dead_bot_api_only_degrades(migrated_database: str, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings = agent.environment(migrated_database, nowhere)
    with agent.running(settings, tmp_path / "agent.log") as found:
        eventually(lambda: found.get().json()["status"] == "degraded")
        assert found.get().status_code == 200
