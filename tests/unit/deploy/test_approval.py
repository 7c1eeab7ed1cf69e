"""What counts as the Master's word, and what he is shown."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.telegram import approval, hearing
from deploy.telegram.approval import Heard, Posted, Proposal, Request

DIGEST = "0123456789abcdef"
REQUEST = Request(4711, DIGEST, "Deploy?")
MESSAGE = Posted(chat=42, message=7, at=1000)
PROPOSAL = Proposal(
    title="Shop",
    host="vps",
    run="2026-01-01_00-00-00",
    until="2026-01-01 00:30 UTC (30 min)",
    ref="main",
    sha="a" * 40,
    live="r1 (v1)",
    commits=("abc1234 one", "def5678 two"),
    more=0,
    lost=0,
    who="ann on laptop (inv)",
    tests="3 passed",
    rehearsal="safe to roll back",
    pending="0002, 0003",
    operations=(),
)
WORDS = st.sampled_from(
    ("callback_query", "message", "data", "text", "chat", "id", "date", "from", "update_id")
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from((42, 1000, 4711, DIGEST, f"approve:4711:{DIGEST}", "/approve 4711")),
)
GARBAGE = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(WORDS, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=3),
    ),
    max_leaves=20,
)


def press(data: Any = f"approve:4711:{DIGEST}", chat: Any = 42, name: Any = "q1") -> dict[str, Any]:
    message = {"message_id": 7, "date": 0, "chat": {"id": chat, "type": "private"}}
    return {"update_id": 1, "callback_query": {"id": name, "data": data, "message": message}}


def typed(text: Any = "/approve 4711", chat: Any = 42, at: Any = 1001) -> dict[str, Any]:
    return {"update_id": 1, "message": {"text": text, "date": at, "chat": {"id": chat}}}


@pytest.mark.parametrize(
    ("update", "decision"),
    [
        (press(), "approved"),
        (press(f"reject:4711:{DIGEST}"), "rejected"),
        (typed(), "approved"),
        (typed("/reject  4711 "), "rejected"),
        (typed("/approve@some_bot 4711"), "approved"),
        (typed(at=1000), "approved"),
    ],
)
def test_the_masters_word_is_heard(update: dict[str, Any], decision: str) -> None:
    heard = approval.judge(update, REQUEST, MESSAGE)
    assert heard == Heard(decision, "q1" if "callback_query" in update else "")


@pytest.mark.parametrize(
    "update",
    [
        press(chat=43),
        press(chat="42"),
        press(chat=True),
        press(chat=42.0),
        press(chat=None),
        press(f"approve:4712:{DIGEST}"),
        press("approve:4711:0123456789abcdee"),
        press(f"approve:4711:{DIGEST}0"),
        press(f" approve:4711:{DIGEST}"),
        press(f"approve:4711:{DIGEST}\n"),
        press(f"approve:٤٧١١:{DIGEST}"),
        press(f"shove:4711:{DIGEST}"),
        press(b"approve"),
        press(name=None),
        {**press(), "callback_query": {"data": f"approve:4711:{DIGEST}", "id": "q1"}},
        typed(chat=43),
        typed(chat=42.0),
        typed("/approve"),
        typed("/approve 4712"),
        typed("/approve 47110"),
        typed("/approve ٤٧١١"),
        typed("approve 4711"),
        typed("/approve 4711 or not"),
        typed("x\n/approve 4711"),
        typed(at=999),
        typed(at=None),
        typed(at=True),
        {**typed(), "callback_query": {}},
        {"edited_message": typed()["message"]},
        {"channel_post": typed()["message"]},
    ],
)
def test_everything_else_decides_nothing(update: dict[str, Any]) -> None:
    assert approval.judge(update, REQUEST, MESSAGE) is None


@given(GARBAGE)
def test_garbage_decides_nothing(update: Any) -> None:
    stranger = Posted(chat=43, message=7, at=1000)
    assert approval.judge(update, REQUEST, stranger) is None
    assert approval.judge(update, replace(REQUEST, digest="f" * 16, number=1), MESSAGE) is None
    approval.posted(update)
    assert all(isinstance(item, dict) for _, item in hearing.numbered(update))


@given(st.data())
def test_a_word_with_one_thing_wrong_decides_nothing(data: st.DataObject) -> None:
    update: dict[str, Any] = data.draw(st.sampled_from((press(), typed())))
    path: list[str] = []
    value: Any = update["callback_query"] if "callback_query" in update else update["message"]
    while isinstance(value, dict):
        path.append(data.draw(st.sampled_from(sorted(set(value) - {"date", "message_id", "type"}))))
        inner, value = value, value[path[-1]]
    wrong = data.draw(GARBAGE.filter(lambda item: item != value))
    if path[-1] == "id" and isinstance(wrong, str):
        return  # the name of a press may be any
    inner[path[-1]] = wrong
    assert approval.judge(update, REQUEST, MESSAGE) is None
    inner[path[-1]] = value


def test_where_a_message_is_is_read_from_the_answer() -> None:
    answer = {"message_id": 7, "date": 1000, "chat": {"id": -42}}
    assert approval.posted(answer) == Posted(-42, 7, 1000)
    for name in answer:
        assert approval.posted({**answer, name: "7"}) is None


@given(st.lists(st.booleans(), max_size=120), st.integers(0, 50))
def test_nobody_elses_update_is_confirmed_as_long_as_it_can_be_helped(
    ours: list[bool], offset: int
) -> None:
    found = [(1000 + number, item) for number, item in enumerate(ours)]
    wanted = hearing.confirmed(found, offset)
    lost = [number for number, item in found if number < wanted and not item]
    assert not lost or len(found) >= hearing.WINDOW
    assert len(lost) <= hearing.WINDOW // 2
    if found and found[0][1]:
        assert wanted > found[0][0]


def test_the_master_is_shown_what_it_is_about() -> None:
    told = approval.shown(replace(PROPOSAL, operations=("drops a table",), lost=2, more=3))
    for part in (
        "🔔 Deploy Shop to vps?",
        "Ref: main",
        "Commit: aaaaaaaaaaaa",
        "Live: r1 (v1)",
        "Commits since then: 5",
        "• abc1234 one\n• def5678 two\n… and 3 more",
        "Live commits that it lacks: 2",
        "By: ann on laptop (inv)",
        "Tests: 3 passed",
        "Rehearsal: safe to roll back",
        "Pending migrations: 0002, 0003",
        "Migration: drops a table",
        "Until: 2026-01-01 00:30 UTC (30 min)",
        "Run: 2026-01-01_00-00-00",
    ):
        assert part in told
    assert "unknown" in approval.shown(replace(PROPOSAL, commits=None))
    first = approval.shown(replace(PROPOSAL, live="", commits=None))
    assert "Live: nothing yet" in first
    assert "Commits since then" not in first


def test_many_operations_are_counted() -> None:
    told = approval.shown(replace(PROPOSAL, operations=tuple(f"o{n}" for n in range(40))))
    assert told.count("Migration: ") == approval.MOST_OPERATIONS
    assert "… and 25 more" in told


@given(st.text(max_size=300), st.text(max_size=5000))
def test_whatever_stands_in_a_subject_it_is_one_line_that_fits(subject: str, who: str) -> None:
    proposal = replace(PROPOSAL, commits=(subject,) * 10, operations=(who,) * 99, who=who)
    plain = approval.shown(replace(PROPOSAL, commits=("x",) * 10, operations=("x",) * 99))
    told = approval.shown(proposal)
    assert len(told.split("\n")) == len(plain.split("\n"))
    assert all(line.isprintable() for line in told.split("\n"))
    request = Request(10**18 - 1, approval.digest_of(told), told)
    question = approval.question(request)
    assert len(question["text"].encode("utf-16-le")) // 2 <= 4096
    assert len(approval.closed(request, "timed out").encode("utf-16-le")) // 2 <= 4096


@pytest.mark.parametrize("letter", ["x", "😀"])
def test_however_much_it_is_it_fits_and_keeps_its_beginning(letter: str) -> None:
    long = letter * 300
    told = approval.shown(
        replace(PROPOSAL, commits=(long,) * 10, operations=(long,) * 99, who=long, ref=long)
    )
    request = Request(10**18 - 1, approval.digest_of(told), told)
    question = approval.question(request)
    assert 3500 < len(question["text"].encode("utf-16-le")) // 2 <= 4096
    assert question["text"].endswith("/reject 999999999999999999")
    assert "Until: 2026-01-01 00:30" in told


def test_the_buttons_say_what_is_heard() -> None:
    question = approval.question(replace(REQUEST, number=10**18 - 1))
    (buttons,) = question["reply_markup"]["inline_keyboard"]
    for button, decision in zip(buttons, ("approved", "rejected"), strict=True):
        data = button["callback_data"]
        assert len(data.encode()) <= 64  # the Bot API takes no more
        heard = approval.judge(press(data), replace(REQUEST, number=10**18 - 1), MESSAGE)
        assert heard == Heard(decision, "q1")


def test_a_digest_stands_for_all_that_is_shown() -> None:
    first, other = (approval.shown(replace(PROPOSAL, who=who)) for who in ("ann", "bob"))
    digests = {approval.digest_of(text) for text in (first, first, other)}
    assert len(digests) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", item) for item in digests)
