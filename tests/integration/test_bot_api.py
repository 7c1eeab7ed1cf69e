"""The agent's client and the local Bot API: what each makes of the other's answers."""

from __future__ import annotations

import dataclasses

import pytest
import requests

from server_agent import telegram as client
from server_agent.settings import Settings
from server_agent.telegram import TelegramError
from tests.support.bot_api import MASTER, BotApi, Trouble


def settings(api: BotApi) -> Settings:
    return Settings("postgresql://h/d", telegram_token=api.token, telegram_api_base=api.url)


def refusal(some: Settings, chat: str = MASTER) -> TelegramError:
    with pytest.raises(TelegramError) as found:
        client.send_message(some, chat, "hello")
    assert some.telegram_token not in str(found.value)
    return found.value


def test_a_message_arrives_and_a_long_one_is_cut(telegram: BotApi) -> None:
    client.get_me(settings(telegram))
    client.send_message(settings(telegram), MASTER, "x" * 5000)
    assert telegram.calls == ["getMe", "sendMessage"]
    assert telegram.texts() == ["x" * 4096]


@pytest.mark.parametrize(
    ("trouble", "final", "wait"),
    [
        (Trouble(429, retry_after=7), False, 7.0),
        (Trouble(429, retry_after=10**9), False, client.LONGEST_WAIT),
        (Trouble(429, b'{"parameters": {"retry_after": -1}}'), False, None),
        (Trouble(429, b'{"parameters": {"retry_after": 1e999}}'), False, None),
        (Trouble(429, b'{"parameters": {"retry_after": "soon"}}'), False, None),
        (Trouble(429, b'{"parameters": [1]}'), False, None),
        (Trouble(400), True, None),
        (Trouble(500), False, None),
        (Trouble(502, b"<html>"), False, None),
        (Trouble(200, b"<html>"), False, None),
        (Trouble(200, b"[" * 100_000), False, None),
        (Trouble(200, b'{"ok": false}'), False, None),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_a_refusal_means(
    telegram: BotApi, trouble: Trouble, *, final: bool, wait: float | None
) -> None:
    telegram.fail_next(trouble)
    error = refusal(settings(telegram))
    assert (error.final, error.retry_after) == (final, wait)
    assert telegram.texts() == []


def test_a_wrong_token_and_a_strange_chat_are_final(telegram: BotApi) -> None:
    wrong = dataclasses.replace(settings(telegram), telegram_token="1:wrong")
    assert refusal(wrong).final
    assert "401" in refusal(wrong).why
    assert "chat not found" in refusal(settings(telegram), chat="1").why


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_cannot_be_read_is_a_bad_request(telegram: BotApi, body: bytes) -> None:
    url = f"{telegram.url}/bot{telegram.token}/sendMessage"
    header = {"Content-Type": "application/json"}
    answer = requests.post(url, data=body, headers=header, timeout=10)
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400)
