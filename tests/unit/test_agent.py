"""The agent's pure parts."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from hypothesis import example, given
from hypothesis import strategies as st

from server_agent import (
    log,
    reactive,
    server,
    settings,
    telegram,
    threads,
    updates,
)
from server_agent.model import Model
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError
from server_agent.updates import Press

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


@given(JSON)
@example("\0\ud800")
def test_what_is_stored_is_what_the_database_takes(value: Any) -> None:
    odd = {"chat": {"id": 1}, "text": value}
    for message in (value, odd, {**odd, "from": value}, {"chat": value, "text": "hi"}):
        found = updates.parse(json.dumps({"update_id": 1, "message": message}).encode())
        assert found
        text = json.dumps(found.model_dump(by_alias=True), allow_nan=False, ensure_ascii=False)
        assert "\\u0000" not in text
        text.encode()


@given(st.integers(0, 2**63 - 1), st.dictionaries(st.text(), st.text()))
def test_an_update_is_read(number: int, more: dict[str, str]) -> None:
    found = updates.parse(json.dumps({**more, "update_id": number}).encode())
    assert found
    assert found.update_id == number


@given(st.binary(max_size=200))
def test_garbage_is_no_update(body: bytes) -> None:
    assert updates.parse(body) is None


@pytest.mark.parametrize(
    ("given_secret", "secret", "good"),
    [("a", "a", True), ("b", "a", False), ("", "", False), ("ü", "ü", True), ("", "a", False)],
)
def test_who_is_authentic(given_secret: str, secret: str, *, good: bool) -> None:
    assert updates.authentic(given_secret, secret) is good


def test_a_body_is_read_up_to_its_limit() -> None:
    async def chunks(sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield b"x" * size

    assert len(asyncio.run(updates.limited(chunks([1, 2, updates.LARGEST - 3])))) == updates.LARGEST
    with pytest.raises(HTTPException) as refused:
        asyncio.run(updates.limited(chunks([updates.LARGEST, 1])))
    assert refused.value.status_code == 413


def test_a_body_that_does_not_end_in_time_is_given_up() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.001)

    with pytest.raises(HTTPException) as refused:
        asyncio.run(updates.limited(trickle(), patience=0.01))
    assert refused.value.status_code == 408


def message(chat: object, text: object) -> dict[str, Any]:
    return {"message": {"chat": {"id": chat}, "text": text}}


def written(sender: object, chat: int = 1) -> dict[str, Any]:
    return {"message": {"chat": {"id": chat}, "from": {"id": sender}, "text": "hi"}}


def press(chat: object, data: object = "x", **more: object) -> dict[str, Any]:
    where = {"chat": {"id": chat}, "message_id": 5}
    return {"callback_query": {"id": "7", "from": {"id": 1}, "message": where, "data": data} | more}


@pytest.mark.parametrize(
    ("payload", "master", "heard"),
    [
        (message(1, "hi"), "1", "hi"),
        (message("1", "hi"), "1", ""),
        (message(1.0, "hi"), "1", ""),
        (message(bool(1), "hi"), "1", ""),
        (written(1), "1", "hi"),
        (written(2), "1", ""),
        (written(2, -1), "-1", "hi"),
        (press(1), "1", "x"),
        (press(2), "1", ""),
        (press(1, **{"from": {"id": 2}}), "1", ""),
        (press(1, **{"from": None}), "1", ""),
        (press(1, data=None), "1", ""),
        (press(1, message=None), "1", ""),
        (press(1) | message(1, "hi"), "1", "x"),
        (press(2) | message(1, "hi"), "1", ""),
        (message(2, "hi"), "1", ""),
        (message(1, "hi"), "", ""),
        (message(1, None), "1", ""),
        ({"message": 3}, "1", ""),
        ({"message": {"chat": 1, "text": "hi"}}, "1", ""),
        ({}, "1", ""),
    ],
)
def test_what_the_master_says(payload: dict[str, Any], master: str, heard: str) -> None:
    said = updates.heard({"update_id": 1, **payload}, master)
    assert heard == (said.data if isinstance(said, Press) else said.text if said else "")


def context_of(some: Settings, health: Callable[[], dict[str, Any]]) -> reactive.Context:
    database = Store(some.database_url)
    return reactive.Context(some, database, Model(some, database), health)


def found() -> dict[str, Any]:
    checks = {"database": {"status": "ok"}}
    return {"status": "ok", "version": "1", "sha": "abcdefgh", "checks": checks}


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("/status", "ok, version 1 (abcdefg)\ndatabase: ok"),
        ("/STATUS@my_bot now", "ok, version"),
        ("/help", "I look after this server.\n/status - how it is\n/budget - "),
        ("/approve", "Say which request"),
        ("/approve three", "Say which request"),
        ("/approve \u0663", "Say which request"),
        ("/reject 1234567890123456789", "Say which request"),
        ("/deployments", "I was told of no deployment yet"),
        ("/start", "I look after"),
        ("what?", "I can tell about"),
        ("how full is the DISK?", "disk: "),
        ("", "I can tell about"),
        ("  ", "I can tell about"),
    ],
)
def test_answers(text: str, begins: str) -> None:
    some = Settings("postgresql://h/d")
    context = context_of(some, found)
    assert reactive.answer(context, text).startswith(begins)


def test_a_command_that_fails_is_answered_all_the_same() -> None:
    some = Settings("postgresql://h/d")
    context = context_of(some, dict)
    assert reactive.answer(context, "/status").startswith("Something went wrong")


RECORD = {
    "id": "1",
    "kind": "deploy",
    "outcome": "success",
    "code": 0,
    "sha": "0123456789abcdef",
    "ref": "main",
    "release": "r1",
    "started": "2026-11-25T12:03:05+00:00",
    "seconds": 61.2,
    "who": "ann",
}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "I was told of no deployment yet."),
        ("[]", "I was told of no deployment yet."),
        ("[" * 100_000, "history.json cannot be read."),
        ("{}", "history.json cannot be read."),
        ("[3]", "history.json cannot be read."),
        (json.dumps([{**RECORD, "code": "0"}]), "history.json cannot be read."),
        (
            json.dumps([RECORD]),
            "2026-11-25T12:03 deploy main (0123456): success (code 0), 61.2 s, ann",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_told_of_deployments(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "history.json").write_text(content)
    assert server.deployments(Settings("", facts_dir=str(tmp_path))) == told


def test_no_more_than_five_deployments_are_told_of(tmp_path: Path) -> None:
    records = [{**RECORD, "ref": str(number)} for number in range(9)]
    (tmp_path / "history.json").write_text(json.dumps(records))
    told = server.deployments(Settings("", facts_dir=str(tmp_path)))
    refs = [line.split()[2] for line in told.splitlines()]
    assert refs == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("error", "attempts", "pause"),
    [
        (TelegramError("x"), 0, 0.5),
        (TelegramError("x"), 3, 4.0),
        (TelegramError("x"), 50, 60.0),
        (TelegramError("x", retry_after=7), 0, 7),
        (TelegramError("x", final=True, retry_after=7), 0, None),
        (TelegramError("x"), telegram.TRIES - 1, None),
    ],
)
def test_when_the_bot_api_is_asked_again(
    error: TelegramError, attempts: int, pause: float | None
) -> None:
    assert telegram.pause_after(error, attempts) == pause


def test_settings_have_defaults_and_a_database() -> None:
    some = settings.from_environment({"DATABASE_URL": "postgresql://u:pw@h/d"})
    assert (some.port, some.telegram_api_base) == (8000, "https://api.telegram.org")
    assert "pw" not in repr(some)
    with pytest.raises(ValueError, match="DATABASE_URL"):
        settings.from_environment({})


def test_a_public_address_is_guarded() -> None:
    some = {"DATABASE_URL": "postgresql://h/d", "PUBLIC_URL": "https://example.org/"}
    with pytest.raises(ValueError, match="TELEGRAM_WEBHOOK_SECRET"):
        settings.from_environment(some)
    guarded = settings.from_environment({**some, "TELEGRAM_WEBHOOK_SECRET": "s"})
    assert guarded.public_url == "https://example.org"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", "postgresql://u:hunter2/x@h/d"),
        ("LOG_LEVEL", "loud"),
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "\u0663"),
        ("LOOK_SECONDS", "0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name) as refused:
        settings.from_environment({"DATABASE_URL": "postgresql://h/d", name: value})
    assert "hunter2" not in str(refused.value)


def test_a_log_level_may_be_written_small() -> None:
    some = {"DATABASE_URL": "host=h password=p", "LOG_LEVEL": "debug"}
    assert settings.from_environment(some).log_level == "DEBUG"


def test_what_hangs_is_left_alone() -> None:
    never = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            threads.within(0.01, never.wait)
    finally:
        never.set()


@pytest.mark.parametrize("url", ["postgresql://u:p%40ss%2Fword@h/d", "host=h password=p@ss/word"])
def test_a_password_is_masked_however_it_is_written(url: str) -> None:
    formatter = log.JsonLines(log.secrets_of(Settings(url)))
    text = "p@ss/word p%40ss%2Fword"
    record = logging.LogRecord("a", logging.INFO, "f", 1, text, None, None)
    assert json.loads(formatter.format(record))["message"] == "*** ***"


def test_a_password_that_is_odd_in_an_address_is_masked() -> None:
    assert "[hunter2" in log.secrets_of(Settings("postgresql://u:[hunter2@h/d"))


def test_secrets_are_masked_in_every_line() -> None:
    some = Settings(
        database_url="postgresql://u:p%40ss%2Fword@h/d",
        telegram_api_token="12345:token",
        telegram_webhook_secret="hook-secret",
    )
    formatter = log.JsonLines(log.secrets_of(some))
    record = logging.LogRecord(
        "a", logging.INFO, "f", 1, "%s %s %s", ("p@ss/word", "12345:token", "hook-secret"), None
    )
    line = formatter.format(record)
    assert json.loads(line)["message"] == "*** *** ***"
