"""The agent's pure parts."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from server_agent import (
    app,
    log,
    reactive,
    server,
    settings,
    store,
    telegram,
    updates,
)
from server_agent.model import Model
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.telegram import TelegramError
from server_agent.updates import Event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


@given(JSON)
def test_cleaned_json_is_what_the_database_takes(value: Any) -> None:
    text = json.dumps(updates.clean(value), allow_nan=False, ensure_ascii=False)
    assert "\0" not in text
    text.encode()


@given(st.integers(0, updates.HIGHEST), st.dictionaries(st.text(), st.text()))
def test_an_update_is_read(number: int, more: dict[str, str]) -> None:
    body = json.dumps({**more, "update_id": number}).encode()
    assert updates.parse(body)[0] == number


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_at_most(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's errors and ours, whatever they say
        updates.parse(body)


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


def written(sender: object, kind: str) -> dict[str, Any]:
    chat = {"id": 1, "type": kind}
    return {"message": {"chat": chat, "from": {"id": sender}, "text": "hi"}}


def press(chat: object, data: object = "x", **more: object) -> dict[str, Any]:
    where = {"chat": {"id": chat, "type": "private"}, "message_id": 5}
    return {"callback_query": {"id": "7", "from": {"id": 1}, "message": where, "data": data} | more}


@pytest.mark.parametrize(
    ("payload", "master", "event"),
    [
        (message(1, "hi"), "1", Event("hi")),
        (message("1", "hi"), "1", Event("hi")),
        (written(1, "private"), "1", Event("hi")),
        (written(2, "private"), "1", None),
        (written(2, "group"), "1", Event("hi")),
        (press(1), "1", Event("x", "7", 5)),
        (press(2), "1", None),
        (press(1, **{"from": {"id": 2}}), "1", None),
        (press(1, **{"from": None}), "1", None),
        (press(1, data=None), "1", None),
        (press(1, message=None), "1", None),
        (press(1) | message(1, "hi"), "1", Event("x", "7", 5)),
        (press(2) | message(1, "hi"), "1", None),
        (message(2, "hi"), "1", None),
        (message(1, "hi"), "", None),
        (message(1, None), "1", None),
        ({"message": 3}, "1", None),
        ({"message": {"chat": 1, "text": "hi"}}, "1", None),
        ({}, "1", None),
    ],
)
def test_what_the_master_says(payload: dict[str, Any], master: str, event: Event | None) -> None:
    assert updates.read(payload, master) == event


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
        ("/deployments", "Nobody tells me of deployments"),
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
        (None, "I was told of no deployment yet: there is no history.json."),
        ("", "history.json cannot be read: JSONDecodeError."),
        ("[" * 100_000, "history.json cannot be read: RecursionError."),
        ("{}", "history.json holds no list of deployments."),
        ("[]", "There was no deployment yet."),
        (
            json.dumps([RECORD]),
            "2026-11-25T12:03 deploy main (0123456): success (code 0), 61.2 s, ann",
        ),
        ("[3]", "? ? ? (?): ? (code ?), ? s, ?"),
        (json.dumps([{"ref": "a\nb" + "x" * 99}]), "? ? a b" + "x" * 37 + " (?): ?"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_told_of_deployments(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "history.json").write_text(content)
    assert server.deployments(str(tmp_path)).startswith(told)


def test_no_more_than_five_deployments_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps([{"ref": str(n)} for n in range(9)]))
    refs = [line.split()[2] for line in server.deployments(str(tmp_path)).splitlines()]
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


@pytest.mark.parametrize(
    ("database", "telegram", "state"),
    [
        ("ok", "ok", "ok"),
        ("ok", "disabled", "ok"),
        ("ok", "failed", "degraded"),
        ("failed", "ok", "down"),
        ("failed", "failed", "down"),
    ],
)
def test_how_it_is_overall(database: str, telegram: str, state: str) -> None:
    checks: dict[str, dict[str, Any]] = {
        "database": {"status": database},
        "telegram": {"status": telegram},
    }
    assert app.overall(checks) == state


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
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name) as refused:
        settings.from_environment({"DATABASE_URL": "postgresql://h/d", name: value})
    assert "hunter2" not in str(refused.value)


def test_a_log_level_may_be_written_small() -> None:
    some = {"DATABASE_URL": "host=h password=p", "LOG_LEVEL": "debug"}
    assert settings.from_environment(some).log_level == "DEBUG"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://h/d", {"host": "h,h", "hostaddr": "::1,127.0.0.1"}),
        ("postgresql:///d", {}),
        ("postgresql://a,b/d", {}),
        ("host=/run/postgresql", {}),
        ("host=h hostaddr=10.0.0.1", {}),
    ],
)
def test_a_servers_addresses(url: str, found: dict[str, str]) -> None:
    assert store.addresses(url, lambda _: ["::1", "127.0.0.1"]) == found


def test_a_resolver_that_hangs_is_left_alone() -> None:
    never = threading.Event()

    def hang(_name: str) -> list[str]:
        never.wait()
        return []

    try:
        with pytest.raises(store.Late):
            store.addresses("postgresql://h/d", hang, seconds=0.01)
    finally:
        never.set()


def test_an_unknown_name_is_an_error_of_the_database() -> None:
    def unknown(_name: str) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(psycopg2.OperationalError, match="no such name"):
        store.addresses("postgresql://h/d", unknown)


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
