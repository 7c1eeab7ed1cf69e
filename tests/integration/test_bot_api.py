"""The agent's client and the local Bot API: what each makes of the other's answers."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

from sandbox import bot_api
from sandbox.bot_api import MASTER, BotApi, Trouble
from server_agent import telegram as client
from server_agent.settings import Settings
from server_agent.telegram import TelegramError
from tests.support.agent import eventually
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

SECRET = "A-Za-z0-9_-"
ASKS = {"Approve": "approve:1:0123456789abcdef", "Reject": "reject:1:x"}


def settings(api: BotApi) -> Settings:
    return Settings(
        "postgresql://h/d",
        telegram_api_token=api.token,
        telegram_api_base=api.url,
        telegram_webhook_secret=SECRET,
    )


def refusal(some: Settings, chat: str = MASTER) -> TelegramError:
    return refused(some, lambda: client.send_message(some, chat, "hello"))


def refused(some: Settings, call: Callable[[], object]) -> TelegramError:
    with pytest.raises(TelegramError) as found:
        call()
    assert some.telegram_api_token not in str(found.value)
    return found.value


def ask(api: BotApi, method: str, **given: Any) -> Any:
    """Call a method; return its result, or the words of its refusal."""
    answer = requests.post(f"{api.url}/bot{api.token}/{method}", json=given, timeout=10).json()
    return answer["result"] if answer["ok"] else answer["description"]


def numbers(api: BotApi, **given: Any) -> list[int]:
    return [item["update_id"] for item in ask(api, "getUpdates", **given)]


class Hook(HTTPServer):
    """Takes updates, and answers with these statuses, in the end with 200."""

    statuses: list[int]
    seen: list[tuple[str | None, dict[str, Any]]]


@contextmanager
def hooked(*statuses: int) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        server: Hook

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append((self.headers["X-Telegram-Bot-Api-Secret-Token"], body))
            self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            pass

    with Hook(("127.0.0.1", 0), Handler) as server:
        server.statuses, server.seen = list(statuses), []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_message_arrives_and_a_long_one_is_cut(telegram: BotApi) -> None:
    client.call(settings(telegram), "getMe")
    client.send_message(settings(telegram), MASTER, "x" * 5000)
    assert telegram.calls == ["getMe", "sendMessage"]
    assert telegram.texts() == ["x" * 4094 + "\n…"]


@pytest.mark.parametrize(
    ("trouble", "final", "wait"),
    [
        (Trouble(429, retry_after=7), False, 7.0),
        (Trouble(429, retry_after=10**9), False, client.LONGEST_WAIT),
        (Trouble(429, b'{"parameters": {"retry_after": -1}}'), False, 0.0),
        (Trouble(429, b'{"parameters": {"retry_after": 1e999}}'), False, 0.0),
        (Trouble(429, b'{"parameters": {"retry_after": "soon"}}'), False, 0.0),
        (Trouble(429, b'{"parameters": [1]}'), False, 0.0),
        (Trouble(400), True, 0.0),
        (Trouble(403, b"<html>"), False, 0.0),
        (Trouble(404, b'{"detail": "Not Found"}'), False, 0.0),
        (Trouble(401, b'{"error": 401, "error_code": 502}'), False, 0.0),
        (Trouble(500), False, 0.0),
        (Trouble(502, b"<html>"), False, 0.0),
        (Trouble(200, b"<html>"), False, 0.0),
        (Trouble(200, b"[" * 100_000), False, 0.0),
        (Trouble(200, b'{"ok": false}'), False, 0.0),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_a_refusal_means(
    telegram: BotApi, trouble: Trouble, *, final: bool, wait: float
) -> None:
    telegram.fail_next(trouble)
    error = refusal(settings(telegram))
    assert (error.final, error.retry_after) == (final, wait)
    assert telegram.texts() == []


def test_a_wrong_token_and_a_strange_chat_are_final(telegram: BotApi) -> None:
    wrong = dataclasses.replace(settings(telegram), telegram_api_token="1:wrong")
    assert refusal(wrong).final
    assert "401" in refusal(wrong).why
    assert "chat not found" in refusal(settings(telegram), chat="1").why


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_cannot_be_read_is_a_bad_request(telegram: BotApi, body: bytes) -> None:
    url = f"{telegram.url}/bot{telegram.token}/sendMessage"
    header = {"Content-Type": "application/json"}
    answer = requests.post(url, data=body, headers=header, timeout=10)
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400)


def test_a_token_a_method_and_a_path_that_are_none(telegram: BotApi) -> None:
    for path, status in (
        ("/bot1:x/getMe", 401),
        (f"/bot{telegram.token}/getMee", 404),
        ("/", 404),
        ("/control/messages", 404),
    ):
        answer = requests.get(telegram.url + path, timeout=10)
        assert (answer.status_code, answer.json()["error_code"]) == (status, status)
    assert requests.get(f"{telegram.url}/bot{telegram.token}/GETME", timeout=10).json()["ok"]


def test_a_form_says_the_same_as_json(telegram: BotApi) -> None:
    markup = json.dumps({"inline_keyboard": [[{"text": "a", "callback_data": "b"}]]})
    form = {"chat_id": MASTER, "text": "hello", "reply_markup": markup}
    url = f"{telegram.url}/bot{telegram.token}/sendMessage"
    assert requests.post(url, data=form, timeout=10).json()["result"]["text"] == "hello"
    assert telegram.messages[0]["reply_markup"] == json.loads(markup)


def test_buttons_are_seen_pressed_and_answered_once(telegram: BotApi) -> None:
    some = settings(telegram)
    message = client.send_message(some, MASTER, "Shall I?", ASKS)
    rows = telegram.messages[0]["reply_markup"]["inline_keyboard"]
    assert [item["callback_data"] for item in rows[0]] == [*ASKS.values()]
    number = telegram.press(message, ASKS["Approve"])
    (update,) = client.get_updates(some, 0, 0)
    query = update["callback_query"]
    assert (update["update_id"], query["data"]) == (number, ASKS["Approve"])
    assert (query["from"]["id"], query["message"]["chat"]["id"]) == (int(MASTER), int(MASTER))
    assert (query["message"]["message_id"], query["message"]["text"]) == (message, "Shall I?")
    client.answer_callback(some, query["id"], "Done.")
    assert [(item["callback_query_id"], item["text"]) for item in telegram.answers] == [
        (query["id"], "Done.")
    ]
    for identity in (query["id"], "1", "", "x" * 1000):
        with pytest.raises(TelegramError) as found:
            client.answer_callback(some, identity, "")
        error = found.value
        assert error.final
        assert "query is too old and response timeout expired or query ID is invalid" in error.why


def test_an_answer_to_a_press_is_cut_by_the_client_and_refused_by_the_server(
    telegram: BotApi,
) -> None:
    for _ in range(2):
        telegram.press(1, "x")
    first, second = [item["callback_query"]["id"] for item in ask(telegram, "getUpdates")]
    client.answer_callback(settings(telegram), first, "x" * 201)
    said = ask(telegram, "answerCallbackQuery", callback_query_id=second, text="x" * 201)
    assert said == "Bad Request: MESSAGE_TOO_LONG"
    assert len(telegram.answers) == 1


@pytest.mark.parametrize(
    ("data", "taken"),
    [("x" * 64, True), ("x" * 65, False), ("é" * 32, True), ("é" * 33, False), ("", False)],
)
def test_what_a_button_sends_has_64_bytes(telegram: BotApi, data: str, *, taken: bool) -> None:
    some = settings(telegram)
    if taken:
        assert client.send_message(some, MASTER, "a", {"b": data}) == 1
        return
    error = refused(some, lambda: client.send_message(some, MASTER, "a", {"b": data}))
    assert "BUTTON_DATA_INVALID" in error.why
    assert telegram.messages == []


@pytest.mark.parametrize(
    "markup",
    [
        "x",
        [],
        {"inline_keyboard": "x"},
        {"inline_keyboard": [{"text": "a"}]},
        {"inline_keyboard": [[{"text": "a"}]]},
        {"inline_keyboard": [[{"callback_data": "a"}]]},
        {"inline_keyboard": [["a"]]},
    ],
    ids=repr,
)
def test_buttons_that_are_none_are_refused(telegram: BotApi, markup: Any) -> None:
    said = ask(telegram, "sendMessage", chat_id=MASTER, text="a", reply_markup=markup)
    assert str(said).startswith("Bad Request: ")
    assert telegram.messages == []


def test_an_edit_replaces_the_text_and_takes_the_buttons_away(telegram: BotApi) -> None:
    some = settings(telegram)
    message = client.send_message(some, MASTER, "Shall I?", ASKS)
    client.edit_message(some, MASTER, message, "Shall I?")
    client.edit_message(some, MASTER, message, "Done.")
    assert [(item["text"], item["reply_markup"]) for item in telegram.edits] == [
        ("Shall I?", None),
        ("Done.", None),
    ]
    times = [item["at"] for item in telegram.accepted]
    assert times == sorted(times)
    error = refused(some, lambda: client.edit_message(some, MASTER, message, "Done."))
    assert error.final
    assert "message is not modified" in error.why
    error = refused(some, lambda: client.edit_message(some, MASTER, message + 1, "Done."))
    assert "message to edit not found" in error.why
    error = refused(some, lambda: client.edit_message(some, MASTER, message, " "))
    assert "message text is empty" in error.why
    assert len(telegram.edits) == 2


@pytest.mark.parametrize(
    ("mode", "text", "seen"),
    [
        ("HTML", "<b>a</b> &lt;b&gt; <a href='x'>c</a>", "a <b> c"),
        ("html", "a < b", 'Unsupported start tag "" at byte offset 2'),
        ("HTML", "é<script>", 'Unsupported start tag "script" at byte offset 2'),
        ("HTML", "<b>a", 'Can\'t find end tag corresponding to start tag "b"'),
        ("HTML", "a</b>", "Unexpected end tag at byte offset 1"),
        (
            "HTML",
            "<b><i>a</b></i>",
            'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"',
        ),
        ("HTML", "a<b", "Unclosed start tag at byte offset 1"),
        ("MarkdownV2", "*a* _b_ `c.` [d](e) \\.", "a b c. d ."),
        (
            "MarkdownV2",
            "a.",
            "Character '.' is reserved and must be escaped with the preceding '\\'",
        ),
        ("MarkdownV2", "é *a", "Can't find end of Bold entity at byte offset 3"),
        ("MarkdownV2", "__a_", "Can't find end of Italic entity at byte offset 3"),
    ],
)
def test_markup_is_parsed(telegram: BotApi, mode: str, text: str, seen: str) -> None:
    said = ask(telegram, "sendMessage", chat_id=MASTER, text=text, parse_mode=mode)
    if isinstance(said, dict):
        assert said["text"] == seen
    else:
        assert said == f"Bad Request: can't parse entities: {seen}"


def test_a_long_message_is_refused_by_utf_16_units(telegram: BotApi) -> None:
    assert ask(telegram, "sendMessage", chat_id=MASTER, text="😀" * 2048)["message_id"] == 1
    said = ask(telegram, "sendMessage", chat_id=MASTER, text="😀" * 2048 + "a")
    assert said == "Bad Request: message is too long"
    assert ask(telegram, "sendMessage", chat_id=MASTER, text=" ").endswith("text is empty")


def test_updates_come_until_they_are_confirmed(telegram: BotApi) -> None:
    assert client.get_updates(settings(telegram), 0, 0) == []
    first, second, third = (telegram.say(text) for text in "abc")
    assert numbers(telegram) == [first, second, third]
    assert numbers(telegram, limit=2) == [first, second]
    assert numbers(telegram, offset=second) == [second, third]
    assert numbers(telegram) == [second, third]
    assert numbers(telegram, offset=-1) == [third]
    assert numbers(telegram) == [third]
    (last,) = client.get_updates(settings(telegram), third, 0)
    assert (last["message"]["text"], last["message"]["chat"]["id"]) == ("c", int(MASTER))
    assert client.get_updates(settings(telegram), third + 1, 0) == []
    for _ in range(101):
        telegram.say("x")
    assert len(numbers(telegram)) == len(numbers(telegram, limit=1000)) == 100
    assert len(numbers(telegram, limit=0)) == 1


def test_only_the_kinds_that_are_wanted_come(telegram: BotApi) -> None:
    ask(telegram, "getUpdates", allowed_updates=["callback_query"])
    telegram.say("a")
    press = telegram.press(1, "b")
    assert numbers(telegram) == [press]
    assert ask(telegram, "getWebhookInfo")["allowed_updates"] == ["callback_query"]
    ask(telegram, "getUpdates", allowed_updates=[])
    telegram.say("a")
    assert len(numbers(telegram)) == 2


def test_who_waits_for_updates_gets_them_when_they_come(telegram: BotApi) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.get_updates, settings(telegram), 0, 30)
        eventually(lambda: telegram.calls == ["getUpdates"])
        number = telegram.say("a")
        assert [item["update_id"] for item in waiting.result(20)] == [number]


def test_the_older_of_two_that_wait_is_sent_away(telegram: BotApi) -> None:
    some = settings(telegram)
    with ThreadPoolExecutor() as pool:
        older = pool.submit(client.get_updates, some, 0, 30)
        eventually(lambda: telegram.calls == ["getUpdates"])
        newer = pool.submit(client.get_updates, some, 0, 30)
        error = refused(some, lambda: older.result(20))
        assert not error.final
        assert "409 Conflict: terminated by other getUpdates request" in error.why
        telegram.say("a")
        assert len(newer.result(20)) == 1


def test_with_a_webhook_nobody_may_ask(telegram: BotApi) -> None:
    some = settings(telegram)
    with ThreadPoolExecutor() as pool:
        older = pool.submit(client.get_updates, some, 0, 30)
        eventually(lambda: telegram.calls == ["getUpdates"])
        client.set_webhook(some, "http://127.0.0.1:9/")
        assert "terminated by setWebhook request" in refused(some, lambda: older.result(20)).why
    error = refused(some, lambda: client.get_updates(some, 0, 0))
    assert "can't use getUpdates method while webhook is active" in error.why
    client.call(some, "deleteWebhook")
    assert client.get_updates(some, 0, 0) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "x"}, "bad webhook: An HTTPS URL must be provided for webhook"),
        ({"url": "ftp://h/"}, "bad webhook: An HTTPS URL must be provided for webhook"),
        ({"url": "http://h/", "secret_token": "a b"}, "secret token contains unallowed characters"),
        ({"url": "http://h/", "secret_token": "a" * 257}, "secret token is too long"),
        (
            {"url": "http://h/", "allowed_updates": "x"},
            "can't parse allowed_updates JSON object",
        ),
    ],
)
def test_a_webhook_that_is_none_is_refused(
    telegram: BotApi, given: dict[str, str], said: str
) -> None:
    assert ask(telegram, "setWebhook", **given) == f"Bad Request: {said}"
    assert ask(telegram, "getWebhookInfo")["url"] == ""


def test_a_webhook_gets_updates_in_order_each_until_it_takes_it(telegram: BotApi) -> None:
    some = settings(telegram)
    before = telegram.say("a")
    with hooked(500, 403) as hook:
        url = f"http://127.0.0.1:{hook.server_port}/hook"
        client.set_webhook(some, url)
        after = telegram.say("b")
        eventually(lambda: len(hook.seen) == 4)
        assert [body["update_id"] for _, body in hook.seen] == [before, before, before, after]
        assert {secret for secret, _ in hook.seen} == {SECRET}
        eventually(lambda: ask(telegram, "getWebhookInfo")["pending_update_count"] == 0)
        info = ask(telegram, "getWebhookInfo")
        assert info["url"] == url
        assert info["last_error_message"] == "Wrong response from the webhook: 403 Forbidden"


def test_updates_wait_for_a_webhook_that_is_down_and_can_be_dropped(telegram: BotApi) -> None:
    some = settings(telegram)
    client.set_webhook(some, f"http://127.0.0.1:{free_port()}/")
    telegram.say("a")
    eventually(lambda: "last_error_message" in ask(telegram, "getWebhookInfo"))
    assert ask(telegram, "getWebhookInfo")["last_error_message"] == "Connection refused"
    client.call(some, "deleteWebhook")
    assert len(numbers(telegram)) == 1
    ask(telegram, "deleteWebhook", drop_pending_updates=True)
    assert numbers(telegram) == []


def test_trouble_may_be_meant_for_one_method(telegram: BotApi) -> None:
    telegram.fail_next(Trouble(429, retry_after=7, method="sendMessage"), Trouble(500))
    with pytest.raises(TelegramError):
        client.call(settings(telegram), "getMe")
    client.call(settings(telegram), "getMe")
    error = refusal(settings(telegram))
    assert error.why == "sendMessage: HTTP 429 Too Many Requests: retry after 7"
    assert client.send_message(settings(telegram), MASTER, "hello") == 1


def test_the_master_can_be_played_from_outside() -> None:
    with bot_api.served(BotApi(control=True)) as api:

        def control(verb: str, **given: Any) -> Any:
            answer = requests.post(f"{api.url}/control/{verb}", json=given, timeout=10)
            return answer.json().get("result")

        client.send_message(settings(api), MASTER, "Shall I?", ASKS)
        said, pressed = control("say", text="a"), control("press", message_id=1, data="b")
        assert numbers(api) == [said, pressed]
        assert [item["text"] for item in control("messages")] == ["Shall I?"]
        assert control("nonsense") is None
