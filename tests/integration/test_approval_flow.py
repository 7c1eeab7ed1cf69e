"""From a question to the Master to his word on it, which counts once and for that question only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests

from sandbox.bot_api import MASTER, BotApi, Trouble
from server_agent import master
from tests.support import agent, postgres
from tests.support.agent import Running, eventually

pytestmark = pytest.mark.slow

HOUR = 3600.0
DIGEST = "0123456789abcdef"
FROM_PIPELINE = """
insert into approvals (kind, subject, digest, text, expires_at)
values ('deployment', %s, %s, 'deploy main?', now() + interval '1 hour') returning id
"""


@pytest.fixture(scope="module")
def house(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, BotApi, str]]:
    """One agent for all that do without one of their own, its Bot API and its database."""
    log = tmp_path_factory.mktemp("house") / "agent.log"
    with agent.housed(postgres_url, template, log) as found:
        yield found


@pytest.fixture
def database(house: tuple[Running, BotApi, str]) -> str:
    _, bot, url = house
    # In the order in which the agent, which is at work, locks them.
    postgres.query(url, "truncate telegram_updates, notices, approvals restart identity")
    with bot.changed:
        for items in (bot.accepted, bot.troubles, bot.pending, bot.queries, bot.shown):
            items.clear()
    return url


@pytest.fixture
def bot(house: tuple[Running, BotApi, str], database: str) -> BotApi:
    return house[1]


def ask(database: str, subject: str = "web", seconds: float = HOUR) -> int | None:
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        # Of a kind that the agent does nothing about.
        number = master.ask(found, "question", subject, f"Restart {subject}?", seconds)
        link.commit()
        return number


def tell(database: str, *texts: str) -> None:
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        for text in texts:
            master.tell(found, text)
        link.commit()


def request(database: str, number: int = 1) -> dict[str, Any]:
    query = "select state, decided_at, decided_by, digest, message_id from approvals where id = %s"
    names = ("state", "decided_at", "decided_by", "digest", "message")
    return dict(zip(names, postgres.query(database, query, number)[0], strict=True))


def state(database: str, number: int = 1) -> str:
    return str(request(database, number)["state"])


def states(database: str) -> list[str]:
    return [row[0] for row in postgres.query(database, "select state from notices order by id")]


def asked(database: str, telegram: BotApi, subject: str = "web") -> int:
    """Ask; return the number of the message that asks the Master, once it is there."""
    before = len(telegram.messages)
    number = ask(database, subject)
    assert number is not None
    eventually(lambda: request(database, number)["message"] is not None)
    assert len(telegram.messages) == before + 1
    return int(telegram.messages[-1]["message_id"])


def button(telegram: BotApi, message: int, index: int = 0) -> str:
    row = telegram.shown[MASTER, message]["reply_markup"]["inline_keyboard"][0]
    return str(row[index]["callback_data"])


def press(telegram: BotApi, message: int, data: str) -> str:
    """Press a button; return what the Master is told."""
    count = len(telegram.answers)
    telegram.press(message, data)
    eventually(lambda: len(telegram.answers) > count)
    return str(telegram.answers[-1]["text"])


def say(telegram: BotApi, text: str) -> str:
    """Write something; return what the Master is answered."""
    count = len(telegram.messages)
    telegram.say(text)
    eventually(lambda: len(telegram.messages) > count)
    return telegram.texts()[-1]


def late(database: str) -> None:
    postgres.query(database, "update approvals set expires_at = now() - interval '1 s'")


def test_the_master_is_asked_with_two_buttons(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    shown = bot.shown[MASTER, message]
    assert shown["text"] == "Restart web?\n\nRequest 1: /approve 1 or /reject 1"
    found = request(database)
    assert (found["state"], found["message"]) == ("open", message)
    expected = [f"approve:1:{found['digest']}", f"reject:1:{found['digest']}"]
    assert [button(bot, message, index) for index in (0, 1)] == expected


@pytest.mark.parametrize(("index", "verdict"), [(0, "approved"), (1, "rejected")])
def test_a_press_decides_and_the_message_shows_it(
    bot: BotApi, database: str, index: int, verdict: str
) -> None:
    message = asked(database, bot)
    data = button(bot, message, index)
    assert press(bot, message, data) == f"Request 1 is {verdict}."
    assert state(database) == verdict
    assert request(database)["decided_at"] is not None
    shown = bot.shown[MASTER, message]
    assert shown["text"] == f"Restart web?\n\n{verdict.capitalize()} by the Master."
    assert "reply_markup" not in shown


@pytest.mark.parametrize(("verb", "verdict"), [("approve", "approved"), ("reject", "rejected")])
def test_a_command_decides_and_the_message_shows_it(
    bot: BotApi, database: str, verb: str, verdict: str
) -> None:
    message = asked(database, bot)
    assert say(bot, f"/{verb} 1") == f"Request 1 is {verdict}."
    assert state(database) == verdict
    shown = bot.shown[MASTER, message]
    assert f"{verdict.capitalize()} by the Master." in shown["text"]
    assert "reply_markup" not in shown
    assert say(bot, "/approve 2") == "There is no such request: 2."


def test_a_second_word_does_nothing(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    yes, no = button(bot, message), button(bot, message, 1)
    press(bot, message, yes)
    before = request(database)
    for data in (yes, no):
        assert press(bot, message, data) == "Request 1 is open no more: approved."
    assert say(bot, "/reject 1") == "Request 1 is open no more: approved."
    assert request(database) == before
    assert len(bot.edits) == 1


def test_a_word_that_comes_late_does_nothing(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    data = button(bot, message)
    late(database)
    assert press(bot, message, data) == "Request 1 is open no more: expired."
    assert say(bot, "/approve 1") == "Request 1 is open no more: expired."
    found = request(database)
    assert (found["state"], found["decided_at"]) == ("expired", None)
    shown = bot.shown[MASTER, message]
    assert shown["text"] == "Restart web?\n\nExpired."
    assert "reply_markup" not in shown
    assert len(bot.edits) == 1


def test_what_was_withdrawn_is_open_no_more(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    postgres.query(database, "update approvals set state = 'withdrawn', ended_at = now()")
    told = press(bot, message, button(bot, message))
    assert told == "Request 1 is open no more: withdrawn."
    assert "Withdrawn." in bot.shown[MASTER, message]["text"]
    assert state(database) == "withdrawn"


def test_a_press_that_is_forged_does_nothing(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    for data, told in (
        (f"approve:1:{DIGEST}", "There is no such request: 1."),
        (f"approve:7:{DIGEST}", "There is no such request: 7."),
        (f"approve:999999999999999999:{DIGEST}", "There is no such request: 999999999999999999."),
        (f"approve:9999999999999999999:{DIGEST}", "I do not know this button."),
        ("approve:1", "I do not know this button."),
        (button(bot, message).upper(), "I do not know this button."),
        (button(bot, message) + "\n", "I do not know this button."),
        ("' or 1=1; --", "I do not know this button."),
        ("", "I do not know this button."),
    ):
        assert press(bot, message, data) == told
    assert state(database) == "open"
    assert bot.edits == []


def test_nobody_but_the_master_decides(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    data = button(bot, message)
    bot.press(message, data, chat="666")
    bot.say("/approve 1", chat="666")
    with bot.changed:
        bot.press(message, data)
        bot.pending[-1]["callback_query"]["from"]["id"] = 666
    assert say(bot, "/help").startswith("I look after")
    assert state(database) == "open"
    assert (bot.answers, bot.edits) == ([], [])


def test_of_many_words_at_once_one_decides(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url)
    with ExitStack() as stack:
        for name in ("first", "second"):
            stack.enter_context(agent.running(settings, tmp_path / f"{name}.log"))
        places = [asked(migrated_database, telegram, f"s{n}") for n in range(1, 11)]
        before = len(telegram.messages)
        with telegram.changed:
            for number, message in enumerate(places, 1):
                telegram.press(message, button(telegram, message, 1))
                telegram.say(f"/approve {number}")
        eventually(lambda: len(telegram.answers) == 10 == len(telegram.messages) - before)
    told = [item["text"] for item in telegram.answers] + telegram.texts()[before:]
    for number in range(1, 11):
        verdict = state(migrated_database, number)
        assert told.count(f"Request {number} is {verdict}.") == 1
        assert told.count(f"Request {number} is open no more: {verdict}.") == 1
    assert len(telegram.edits) == 10


def test_a_request_of_the_pipeline_is_decided_in_its_own_message(
    bot: BotApi, database: str
) -> None:
    number = postgres.query(database, FROM_PIPELINE, "run-1", DIGEST)[0][0]
    row = [{"text": "yes", "callback_data": f"approve:{number}:{DIGEST}"}]
    sent = requests.post(
        f"{bot.url}/bot{bot.token}/sendMessage",
        json={
            "chat_id": MASTER,
            "text": "deploy main?",
            "reply_markup": {"inline_keyboard": [row]},
        },
        timeout=10,
    ).json()["result"]["message_id"]
    assert press(bot, sent, row[0]["callback_data"]) == f"Request {number} is approved."
    assert state(database, number) == "approved"
    assert bot.shown[MASTER, sent]["text"].startswith("deploy main?\n\nApproved by the Master")
    assert states(database) == []


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(429, retry_after=1, method="editMessageText"),
        Trouble(500, method="answerCallbackQuery"),
    ],
)
def test_a_bot_api_that_is_busy_makes_no_second_decision(
    bot: BotApi, database: str, trouble: Trouble
) -> None:
    message = asked(database, bot)
    bot.fail_next(trouble)
    assert press(bot, message, button(bot, message)) == "Request 1 is approved."
    assert not bot.troubles
    assert len(bot.edits) == 1


def test_a_message_that_is_gone_is_no_obstacle(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    data = button(bot, message)
    bot.shown.clear()
    assert press(bot, message, data) == "Request 1 is approved."
    assert state(database) == "approved"


def test_a_press_that_is_too_old_to_be_answered_is_no_obstacle(bot: BotApi, database: str) -> None:
    message = asked(database, bot)
    with bot.changed:
        bot.press(message, button(bot, message))
        bot.queries.clear()
    assert say(bot, "/help").startswith("I look after")
    assert state(database) == "approved"
    assert bot.answers == []
    query = "select state from telegram_updates order by update_id"
    eventually(lambda: postgres.query(database, query) == [("failed",), ("answered",)])


def test_a_decision_outlives_the_agent_and_is_not_made_again(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url)
    with agent.running(settings, tmp_path / "first.log") as first:
        message = asked(migrated_database, telegram)
        telegram.fail_next(Trouble(0, method="answerCallbackQuery"))
        telegram.press(message, button(telegram, message))
        eventually(lambda: not telegram.troubles)
        first.process.kill()
        first.process.wait()
    before = request(migrated_database)
    assert before["state"] == "approved"
    late(migrated_database)
    with agent.running(settings, tmp_path / "second.log"):
        eventually(lambda: len(telegram.answers) == 1)
    assert telegram.answers[0]["text"] == "Request 1 is approved."
    assert request(migrated_database) == before
    assert len(telegram.edits) == 1


def test_the_same_is_asked_once_at_a_time(migrated_database: str) -> None:
    assert [ask(migrated_database), ask(migrated_database)] == [1, None]
    other = ask(migrated_database, "other")
    late(migrated_database)
    assert ask(migrated_database) not in (None, other)
    assert state(migrated_database) == "expired"


def test_what_waits_is_told_in_order_and_again_when_it_was_not_taken(
    bot: BotApi, database: str
) -> None:
    bot.fail_next(
        Trouble(429, retry_after=1, method="sendMessage"), Trouble(500, method="sendMessage")
    )
    tell(database, "one", "two", "three")
    eventually(lambda: states(database) == ["sent"] * 3)
    assert bot.texts() == ["one", "two", "three"]


def test_what_waits_stays_until_the_bot_api_wants_it(bot: BotApi, database: str) -> None:
    bot.fail_next(Trouble(429, retry_after=3000, method="sendMessage"))
    tell(database, "one", "two")
    eventually(lambda: not bot.troubles)
    assert say(bot, "/help").startswith("I look after")
    assert states(database) == ["new", "new"]
    assert len(bot.messages) == 1


def test_what_is_refused_for_good_holds_nothing_up(bot: BotApi, database: str) -> None:
    bot.fail_next(Trouble(403, method="sendMessage"))
    tell(database, "one", "two")
    eventually(lambda: states(database) == ["failed", "sent"])
    assert bot.texts() == ["two"]


def test_what_is_open_no_more_is_not_asked(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    ask(migrated_database)
    late(migrated_database)
    tell(migrated_database, "something else")
    with agent.running(agent.environment(migrated_database, telegram.url), tmp_path / "log"):
        eventually(lambda: states(migrated_database) == ["dropped", "sent"])
    assert telegram.texts() == ["something else"]


def test_without_anybody_to_tell_nothing_piles_up(migrated_database: str, tmp_path: Path) -> None:
    tell(migrated_database, "one", "two")
    with agent.running(agent.environment(migrated_database), tmp_path / "log"):
        eventually(lambda: states(migrated_database) == ["failed", "failed"])
