"""What models may cost: never more than the budget, whoever asks and whoever dies."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sandbox.bot_api import BotApi, Trouble
from server_agent import budget, model
from server_agent.budget import BudgetSpent
from server_agent.model import Model
from server_agent.settings import Settings
from server_agent.store import Store
from tests.integration.test_full_flow import message
from tests.support import agent, model_api, postgres
from tests.support.agent import eventually
from tests.support.model_api import KEY, NAME, ModelApi, Odd, error
from tests.support.ports import free_port
from tests.support.postgres import query

FACTS = {"disk": "half full", "memory": "plenty"}
SUMS = """
select p.period, p.spent, p.reserved,
    coalesce(sum(c.prompt_tokens + c.completion_tokens), 0),
    coalesce(sum(c.reserved) filter (where c.settled_at is null), 0)
from token_periods p left join token_calls c on p.period in (c.day, c.month) group by p.period
"""
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and state = 'idle in transaction'
"""


@pytest.fixture
def provider() -> Iterator[ModelApi]:
    with model_api.served(ModelApi()) as api:
        yield api


def clear(database: str) -> None:
    query(database, "truncate token_periods, token_calls, notices, approvals")


def reserve(store: Store, some: Settings, tokens: int) -> int:
    with store.transaction() as found:
        return budget.reserve(found, some, "test", tokens)


def settle(store: Store, some: Settings, call: int, prompt: int, completion: int = 0) -> None:
    with store.transaction() as found:
        budget.settle(found, some, call, prompt, completion)


def some_settings(database: str, provider: ModelApi | None = None, **more: Any) -> Settings:
    url = provider.url if provider else ""
    return replace(Settings(database, model_url=url, model_name=NAME, model_api_key=KEY), **more)


@pytest.fixture(scope="module")
def shared_database(postgres_url: str, template: str) -> Iterator[str]:
    with postgres.scratch(postgres_url, template) as url:
        yield url


@settings(max_examples=3, phases=[Phase.generate])  # chance is not repeated: nothing to shrink
@given(
    seed=st.integers(0, 2**32),
    limits=st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
    largest=st.integers(1, 400),
)
def test_fifty_at_once_never_overspend(
    shared_database: str, seed: int, limits: tuple[int, int], largest: int
) -> None:
    clear(shared_database)
    some = some_settings(shared_database, tokens_per_day=limits[0], tokens_per_month=limits[1])
    store, start = Store(shared_database), threading.Barrier(50)

    def work(number: int) -> None:
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - no secret
        start.wait()
        for _ in range(4):
            tokens = chance.randint(1, largest)
            try:
                call = reserve(store, some, tokens)
            except (BudgetSpent, psycopg2.OperationalError):  # too many wait: as if killed
                continue
            used = chance.randint(0, tokens)
            rest = tokens - used if chance.random() < 0.5 else 0
            if chance.random() < 0.8:  # the others are killed before they settle
                with suppress(psycopg2.OperationalError):
                    settle(store, some, call, used, rest)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))
    found_some = query(shared_database, "select 1 from token_calls limit 1") != []
    assert found_some or min(limits) < largest
    for period, spent, reserved, used, open_ones in query(shared_database, SUMS):
        limit = limits[0] if len(period) > len("2026-11") else limits[1]
        assert spent + reserved <= limit
        assert (spent, reserved) == (used, open_ones)
    with store.transaction() as found:
        day, month = budget.current(found, some)
    for period in (day, month):
        warnings = query(
            shared_database, "select 1 from notices where text like %s", f"%{period.name}:%"
        )
        # What was reserved for a while may have been enough for a warning.
        assert (0 < 0.8 * period.limit <= period.spent) <= len(warnings) <= 1


def test_the_master_is_told_once_for_each_period(migrated_database: str) -> None:
    some = some_settings(migrated_database, tokens_per_day=100, tokens_per_month=1000)
    store = Store(migrated_database)
    for used in (79, 1, 10):
        settle(store, some, reserve(store, some, used), used)
    ((text,),) = query(migrated_database, "select text from notices")
    assert text.startswith("Over 80% of a token budget is spent or reserved.\n")
    assert "80 of 100 tokens spent" in text
    with pytest.raises(BudgetSpent) as refused:
        reserve(store, some, 11)
    assert "90 of 100 tokens spent, 0 reserved" in str(refused.value)
    assert "the call may take 11" in str(refused.value)
    assert reserve(store, some, 10)


def test_what_was_refused_is_not_reserved_anywhere(migrated_database: str) -> None:
    store = Store(migrated_database)
    with pytest.raises(BudgetSpent):
        reserve(store, some_settings(migrated_database, tokens_per_day=10), 11)
    assert query(migrated_database, "select sum(reserved) from token_periods") in (
        [(None,)],
        [(0,)],
    )
    assert query(migrated_database, "select 1 from token_calls") == []


def test_a_call_is_settled_once_and_in_its_own_day(migrated_database: str) -> None:
    some, store = some_settings(migrated_database), Store(migrated_database)
    call = reserve(store, some, 50)
    query(
        migrated_database, "update token_periods set period = '2020-02-29' where length(period) > 7"
    )
    query(migrated_database, "update token_periods set period = '2020-02' where length(period) = 7")
    query(migrated_database, "update token_calls set day = '2020-02-29', month = '2020-02'")
    for _ in range(2):
        settle(store, some, call, 20, 5000)  # more than it reserved: counted in full
    found = query(migrated_database, "select period, spent, reserved from token_periods order by 1")
    assert found == [("2020-02", 5020, 0), ("2020-02-29", 5020, 0)]


def test_a_call_that_nobody_settles_stays_reserved(migrated_database: str) -> None:
    some = some_settings(migrated_database, tokens_per_day=100)
    store = Store(migrated_database)
    reserve(store, some, 50)
    with pytest.raises(BudgetSpent):
        reserve(store, some, 51)
    assert query(migrated_database, "select distinct spent, reserved from token_periods") == [
        (0, 50)
    ]


def test_the_model_answers_and_is_paid(migrated_database: str, provider: ModelApi) -> None:
    asked = Model(some_settings(migrated_database, provider), Store(migrated_database))
    assert asked.answer("how are you?", FACTS) == "You asked: how are you?"
    (call,) = provider.calls
    assert call["model"] == NAME
    assert "disk: half full" in call["messages"][0]["content"]
    assert asked.tokens == 40
    (row,) = query(
        migrated_database,
        "select model, purpose, prompt_tokens, completion_tokens, reserved from token_calls",
    )
    assert row[:4] == (NAME, "answer", 30, 10)
    assert row[4] > model.ANSWER + len("how are you?")


def missing_usage(usage: str) -> bytes:
    return b'{"choices": [{"message": {"content": "hi"}}]%s}' % usage.encode()


@pytest.mark.parametrize(
    ("odd", "told_why", "free"),
    [
        (Odd(401, error(f"Incorrect API key provided: {KEY}")), "HTTP 401", True),
        (Odd(429, error("slow down")), "HTTP 429", True),
        (Odd(500, error("oops")), "HTTP 500", False),
        (Odd(302, b"x"), "HTTP 302", False),
        (Odd(200, b'{"choices": [{"mess'), "no answer of a model", False),
        (Odd(200, b"[" * 100_000), "no answer of a model", False),
        (Odd(200, b"[]"), "no answer of a model", False),
        (Odd(200, b'{"choices": [{"message": {"content": ""}}]}'), "no answer of", False),
        (Odd(200, b"x" * (5 << 20)), "larger", False),
        (Odd(0), "no answer within", False),
    ],
)
def test_a_provider_that_fails_is_said_and_paid_for(
    migrated_database: str,
    provider: ModelApi,
    monkeypatch: pytest.MonkeyPatch,
    odd: Odd,
    told_why: str,
    *,
    free: bool,
) -> None:
    monkeypatch.setattr(model, "DEADLINE", 0.5 if not odd.status else 15.0)
    provider.odd.append(odd)
    asked = Model(some_settings(migrated_database, provider), Store(migrated_database))
    said = asked.answer("how full is the disk?", FACTS)
    assert said.startswith("disk: half full\n\n(the model did not answer: ")
    assert told_why in said
    assert KEY not in said
    rows = query(migrated_database, "select reserved, prompt_tokens from token_calls")
    ((reserved, used),) = rows
    assert used == (0 if free else reserved)
    assert asked.tokens == used


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        ("", "hi"),
        (', "usage": null', "hi"),
        (', "usage": {"prompt_tokens": -5, "completion_tokens": 1}', ""),
        (', "usage": {"prompt_tokens": "9", "completion_tokens": true}', ""),
        (', "usage": {"prompt_tokens": 0, "completion_tokens": 0}', "hi"),
        (', "usage": {"prompt_tokens": 1e400, "completion_tokens": 1}', ""),
        (', "usage": {"prompt_tokens": 99999999999999999999, "completion_tokens": 1}', ""),
    ],
)
def test_without_a_credible_usage_the_reservation_counts(
    migrated_database: str, provider: ModelApi, usage: str, said: str
) -> None:
    provider.odd.append(Odd(200, missing_usage(usage)))
    asked = Model(some_settings(migrated_database, provider), Store(migrated_database))
    answer = asked.answer("hello", FACTS)
    assert answer == said or "no answer of a model" in answer
    assert (answer == "hi") is (said == "hi")
    ((reserved, used),) = query(
        migrated_database, "select reserved, prompt_tokens from token_calls"
    )
    assert used == reserved == asked.tokens


def test_what_no_call_can_have_taken_is_not_believed(
    migrated_database: str, provider: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    provider.prompt_tokens = provider.completion_tokens = 10**15
    asked = Model(some_settings(migrated_database, provider), Store(migrated_database))
    assert asked.answer("hello", FACTS) == "You asked: hello"
    ((reserved, used),) = query(
        migrated_database, "select reserved, prompt_tokens + completion_tokens from token_calls"
    )
    assert used == asked.tokens == model.MOST * reserved
    assert "2000000000000000 tokens" in caplog.text


def test_what_a_killed_call_reserved_is_spent_after_a_while(migrated_database: str) -> None:
    some = some_settings(migrated_database, tokens_per_day=1000)
    store = Store(migrated_database)
    old, new = reserve(store, some, 800), reserve(store, some, 100)
    past = "update token_calls set called_at = now() - interval '6 minutes' where id = %s"
    query(migrated_database, past, old)
    store.run(lambda found: budget.settle_old(found, some))
    spent = "select spent, reserved from token_periods where period like '____-__-__'"
    assert query(migrated_database, spent) == [(800, 100)]
    (told,) = query(migrated_database, "select text from notices")
    assert "800 of 1000 tokens spent, 100 reserved" in told[0]
    settle(store, some, old, 30)
    settle(store, some, new, 30)
    assert query(migrated_database, spent) == [(830, 0)]


def test_nobody_there_costs_nothing(migrated_database: str) -> None:
    nowhere = ModelApi(url=f"http://127.0.0.1:{free_port()}")
    asked = Model(some_settings(migrated_database, nowhere), Store(migrated_database))
    assert "ConnectionError" in asked.answer("hello", FACTS)
    assert asked.tokens == 0


def test_the_master_asks_until_it_is_spent(
    migrated_database: str, telegram: BotApi, provider: ModelApi, tmp_path: Path
) -> None:
    provider.prompt_tokens = 2000
    more = {
        "MODEL_URL": provider.url,
        "MODEL_NAME": NAME,
        "MODEL_API_KEY": KEY,
        "TOKENS_PER_DAY": "2500",
        "LOG_DIR": str(tmp_path),
    }
    with agent.running(
        agent.environment(migrated_database, telegram.url, **more), tmp_path / "out"
    ) as running:
        eventually(lambda: running.get().json()["status"] == "ok")
        assert running.get().json()["budget"]["status"] == "ok"
        running.send(message(1, "hello"))
        eventually(lambda: len(telegram.texts()) == 2)
        running.send(message(2, "how much memory is there?"))
        running.send(message(3, "/budget"))
        eventually(lambda: len(telegram.texts()) == 4)
        found = running.get().json()
    first, warning, second, third = telegram.texts()
    assert first == "You asked: hello"
    assert warning.startswith("Over 80% of a token budget is spent or reserved.")
    assert second.startswith("memory: ")
    assert "(the token budget is used up, " in second
    assert "2010 of 2500 tokens spent, 0 reserved" in third
    assert (found["status"], found["budget"]["status"]) == ("ok", "warned")
    assert found["budget"]["process_tokens"] == found["budget"]["day"]["spent"] == 2010
    assert len(provider.calls) == 1
    assert KEY not in (tmp_path / "app.log").read_text() + (tmp_path / "out").read_text()
    assert "the token budget is used up" in (tmp_path / "reactive.log").read_text()


def test_an_update_that_is_lost_while_the_model_thinks_is_answered_once(
    migrated_database: str, telegram: BotApi, provider: ModelApi, tmp_path: Path
) -> None:
    more = {"MODEL_URL": provider.url, "MODEL_NAME": NAME, "MODEL_API_KEY": KEY}
    settings_of_it = agent.environment(migrated_database, telegram.url, **more)
    provider.open.clear()
    with agent.running(settings_of_it, tmp_path / "out") as running:
        running.send(message(1, "hello"))
        eventually(lambda: len(provider.calls) == 1)
        query(migrated_database, CUT)
        provider.open.set()
        eventually(
            lambda: (
                query(migrated_database, "select state from telegram_updates") == [("answered",)]
            )
        )
    assert telegram.texts() == ["You asked: hello"]
    assert len(provider.calls) == 2


def test_a_busy_bot_api_makes_no_answer_cost_twice(
    migrated_database: str, telegram: BotApi, provider: ModelApi, tmp_path: Path
) -> None:
    more = {"MODEL_URL": provider.url, "MODEL_NAME": NAME, "MODEL_API_KEY": KEY}
    settings_of_it = agent.environment(migrated_database, telegram.url, **more)
    provider.odd.append(Odd(200, json.dumps(answered("\0hello")).encode()))
    busy = Trouble(429, retry_after=1, method="sendMessage"), Trouble(0, method="sendMessage")
    telegram.fail_next(*busy, Trouble(502, b"<html>", method="sendMessage"))
    with agent.running(settings_of_it, tmp_path / "first") as running:
        running.send(message(1, "hello"))
        eventually(lambda: len(telegram.troubles) == 1)
        running.process.kill()
        running.process.wait()
    with agent.running(settings_of_it, tmp_path / "second"):
        eventually(lambda: len(telegram.texts()) == 1)
    assert telegram.texts() == ["hello"]
    assert len(provider.calls) == 0
    assert query(migrated_database, "select count(*) from token_calls") == [(1,)]


def answered(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}]}
