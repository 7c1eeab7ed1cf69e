"""Messages to a Bot API that is not always well."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from deploy import telegram
from deploy.settings import Environment
from sandbox import bot_api
from sandbox.bot_api import MASTER, TOKEN, BotApi, Trouble
from tests.support.ports import free_port


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
    api.fail_next(trouble)
    delivery = telegram.send(master(api.url), "hello", 10)
    assert (delivery.sent, delivery.attempts) == (True, 2)
    assert api.texts() == ["hello"]


def test_silence_ends_with_the_deadline(api: BotApi) -> None:
    api.fail_next(*[Trouble(0)] * 5)
    delivery = telegram.send(master(api.url), "hello", 1)
    assert not delivery.sent
    assert "Timeout" in delivery.why


def test_an_answer_that_hardly_comes_is_not_waited_for() -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with listener.accept()[0] as link, contextlib.suppress(OSError):
                link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(100):
                    link.sendall(b" ")
                    if stop.wait(0.05):
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        delivery = telegram.send(master(f"http://127.0.0.1:{listener.getsockname()[1]}"), "a", 0.5)
        assert thread.is_alive(), "it was waited for"
        stop.set()
        thread.join()
    assert (delivery.sent, delivery.attempts) == (False, 1)


def test_an_address_that_is_dead_leaves_time_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telegram.api, "CONNECT", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        contextlib.ExitStack() as full,
    ):
        for _ in range(3):  # whoever comes after these hears nothing
            link = full.enter_context(socket.socket())
            link.settimeout(0)
            link.connect_ex(listener.getsockname())
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        delivery = telegram.send(master(url), "hello", 2)
    assert not delivery.sent
    assert delivery.attempts > 1


def test_a_redirect_is_not_followed() -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def lead_astray() -> None:
            while not asked or asked[-1]:
                with listener.accept()[0] as link:
                    asked.append(link.recv(9999).partition(b" ")[0])
                    head = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\n"
                    link.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())

        thread = threading.Thread(target=lead_astray)
        thread.start()
        delivery = telegram.send(master(url), "hello", 0.3)
        with socket.create_connection(listener.getsockname()) as link:
            link.shutdown(socket.SHUT_WR)
            thread.join()
    assert asked == [b"POST", b""]
    assert "302" in delivery.why


@pytest.mark.parametrize("text", ["half \ud83d of an emoji", "\udcff" * 5000])
def test_half_a_character_is_no_exception(api: BotApi, text: str) -> None:
    assert telegram.send(master(api.url), text, 5).sent
    (arrived,) = api.texts()
    assert arrived.encode().decode() == arrived
    assert "?" in arrived


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "http://[::1", f"http://{'a' * 300}"])
def test_an_address_that_makes_no_sense_is_no_exception(url: str) -> None:
    delivery = telegram.send(master(url), "hello", 0.2)
    assert (delivery.sent, delivery.attempts) == (False, 1)
    assert delivery.why
    assert TOKEN not in delivery.why


@pytest.mark.parametrize("before", [0, 180, 390])
def test_a_server_that_repeats_the_token_makes_nobody_else_repeat_it(
    api: BotApi, before: int
) -> None:
    told = b"x" * before + TOKEN.encode()
    api.fail_next(
        Trouble(403, told), Trouble(403, json.dumps({"description": told.decode()}).encode())
    )
    for _ in range(2):
        delivery = telegram.send(master(api.url), "hello", 2)
        assert not delivery.sent
        assert "***" in delivery.why
        assert TOKEN[:10] not in delivery.why


def test_a_long_answer_is_cut(api: BotApi) -> None:
    api.fail_next(Trouble(400, b"x" * 3_000_000))
    assert len(telegram.send(master(api.url), "hello", 5).why) < 1000


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
        (429, b'{"ok": false, "parameters": {"retry_after": 0}}', False, None),
        (429, b'{"ok": false, "parameters": {"retry_after": -1}}', False, None),
        (429, b'{"ok": false, "parameters": {"retry_after": NaN}}', False, None),
        (429, b'{"parameters": {"retry_after": 1' + b"0" * 400 + b"}}", False, 1e9),
        (429, b'{"ok": false, "parameters": []}', False, None),
        (500, b"[" * 100_000, False, None),
        (500, b"\xff\x00", False, None),
        (302, b"", False, None),
        (429, b"", False, None),
        (403, b"", False, -1),
    ],
)
def test_an_answer_is_read(status: int, content: bytes, *, ok: bool, again: float | None) -> None:
    reply = telegram.read(status, content)
    assert (reply.ok, reply.again_after) == (ok, again)
