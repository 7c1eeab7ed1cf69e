"""Messages to a Bot API that is not always well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from deploy import telegram
from deploy.settings import Environment
from tests.support import bot_api
from tests.support.agent import free_port
from tests.support.bot_api import MASTER, TOKEN, BotApi, Trouble


@pytest.fixture
def api() -> Iterator[BotApi]:
    with bot_api.served(BotApi()) as found:
        yield found


def master(url: str, token: str = TOKEN, chat: str = MASTER) -> Environment:
    return Environment(telegram_token=SecretStr(token), telegram_api_base=url, master_chat_id=chat)


def test_a_message_arrives_as_it_is(api: BotApi) -> None:
    text = "✅ <b>not html</b> & _not markdown_\n\0 end"
    assert telegram.send(master(api.url), text, 5).sent
    assert api.texts() == [text]


def test_a_long_message_is_cut_to_what_is_taken(api: BotApi) -> None:
    text = "first line\n" + "😀" * 10_000
    assert telegram.send(master(api.url), text, 5).sent
    (arrived,) = api.texts()
    assert arrived.startswith("first line\n😀")
    assert arrived.endswith("…")


def test_a_busy_server_is_asked_again_when_it_says(api: BotApi) -> None:
    api.fail_next(Trouble(429, retry_after=1))
    delivery = telegram.send(master(api.url), "hello", 10)
    assert (delivery.sent, delivery.attempts) == (True, 2)


def test_a_server_that_wants_longer_than_we_have_is_left_alone(api: BotApi) -> None:
    api.fail_next(Trouble(429, retry_after=3600))
    delivery = telegram.send(master(api.url), "hello", 5)
    assert (delivery.sent, delivery.attempts) == (False, 1)
    assert "429" in delivery.why


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_cannot_get_better_is_not_tried_again(api: BotApi, status: int) -> None:
    api.fail_next(Trouble(status))
    delivery = telegram.send(master(api.url), "hello", 5)
    assert (delivery.sent, delivery.attempts) == (False, 1)
    assert str(status) in delivery.why


@pytest.mark.parametrize(
    "trouble",
    [Trouble(500), Trouble(200, b"<html>"), Trouble(200, b'{"ok": false}'), Trouble(200, b"[]")],
)
def test_passing_trouble_is_overcome(api: BotApi, trouble: Trouble) -> None:
    api.fail_next(trouble, trouble)
    delivery = telegram.send(master(api.url), "hello", 10)
    assert (delivery.sent, delivery.attempts) == (True, 3)
    assert api.texts() == ["hello"]


def test_silence_ends_with_the_deadline(api: BotApi) -> None:
    api.fail_next(*[Trouble(0)] * 5)
    delivery = telegram.send(master(api.url), "hello", 1)
    assert not delivery.sent
    assert "Timeout" in delivery.why


def test_nobody_there_is_no_exception_and_tells_no_token() -> None:
    delivery = telegram.send(master(f"http://127.0.0.1:{free_port()}"), "hello", 1)
    assert not delivery.sent
    assert "Connection" in delivery.why
    assert TOKEN not in delivery.why


def test_a_wrong_token_or_chat_is_said(api: BotApi) -> None:
    assert "Unauthorized" in telegram.send(master(api.url, token="1234567:x"), "a", 2).why
    assert "chat not found" in telegram.send(master(api.url, chat="1"), "a", 2).why


def test_without_a_token_nothing_is_tried(api: BotApi) -> None:
    delivery = telegram.send(master(api.url, token=""), "hello", 5)
    assert (delivery.sent, delivery.attempts) == (False, 0)
    assert api.calls == []


@pytest.mark.parametrize(
    ("status", "content", "ok", "again"),
    [
        (200, b'{"ok": true}', True, None),
        (200, b'{"ok": 1}', False, None),
        (429, b'{"ok": false, "parameters": {"retry_after": 3}}', False, 3.0),
        (429, b'{"ok": false, "parameters": {"retry_after": "x"}}', False, None),
        (429, b'{"ok": false, "parameters": {"retry_after": true}}', False, None),
        (429, b'{"ok": false, "parameters": []}', False, None),
        (429, b"", False, None),
        (403, b"", False, -1),
    ],
)
def test_an_answer_is_read(status: int, content: bytes, *, ok: bool, again: float | None) -> None:
    reply = telegram.read(status, content)
    assert (reply.ok, reply.again_after) == (ok, again)
