"""From a look at the server to what was done about it: asked first, done once, told."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.bot_api import BotApi, Trouble
from tests.integration.test_full_flow import message
from tests.support import agent, engine_api
from tests.support.agent import Running, eventually
from tests.support.engine_api import OURS, Engine
from tests.support.ports import free_port
from tests.support.postgres import query

pytestmark = pytest.mark.slow

WORKER = f"{OURS}worker"
RESTART = f"/containers/{WORKER}/restart?t=10"
FAILED = "Exited (1) 5 minutes ago"
APPROVE = "update approvals set state = 'approved', decided_at = now() where state = 'open'"
LATE = "update approvals set expires_at = now() - interval '1 second'"
CUT = """
select pg_terminate_backend(pid) from pg_locks
where locktype = 'advisory' and granted
and database = (select oid from pg_database where datname = current_database())
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with engine_api.served(Engine({WORKER: FAILED, f"{OURS}app": "Up 2 hours (healthy)"})) as found:
        yield found


class House:
    """Where agents live in a test."""

    def __init__(self, database: str, telegram: BotApi, engine: Engine, folder: Path) -> None:
        self.database = database
        self.telegram = telegram
        self.engine = engine
        self.folder = folder
        self.facts = folder / "facts"
        self.facts.mkdir()
        self.backup(datetime.now(UTC))
        self.more: dict[str, str] = {}

    def agent(self, name: str = "agent") -> AbstractContextManager[Running]:
        """Run an agent that looks twice a second at the most."""
        more = {
            "ENGINE_URL": self.engine.url,
            "LOOK_SECONDS": "1",
            "FACTS_DIR": str(self.facts),
            "DISK_FREE_PERCENT": "0",
            "LOG_DIR": str(self.folder / "logs"),
            **self.more,
        }
        settings = agent.environment(self.database, self.telegram.url, **more)
        return agent.running(settings, self.folder / f"{name}.log")

    def backup(self, at: datetime) -> None:
        """Have a backup."""
        told = {"name": "b.sql.gz", "at": at.isoformat(), "state": "good", "bytes": 1}
        (self.facts / "backup.json").write_text(json.dumps(told))

    def states(self) -> list[str]:
        """Return the state of each request."""
        return [row[0] for row in query(self.database, "select state from approvals order by id")]

    def looks(self, more: int = 3) -> None:
        """Wait until the leader has looked some times more."""
        beats = "select beaten_at from scheduler_heartbeat"
        for _ in range(more):
            before = query(self.database, beats)
            eventually(lambda seen=before: query(self.database, beats) != seen)  # type: ignore[misc]

    def told(self, part: str) -> list[str]:
        """Return what was written down for the Master, of what holds some words."""
        rows = query(self.database, "select text from notices order by id")
        return [text for (text,) in rows if part in text]


@pytest.fixture
def house(migrated_database: str, telegram: BotApi, engine: Engine, tmp_path: Path) -> House:
    return House(migrated_database, telegram, engine, tmp_path)


def test_a_failed_container_is_restarted_once_when_the_master_says_so(house: House) -> None:
    with house.agent() as running:
        eventually(lambda: len(house.telegram.texts()) == 1)
        (asked,) = house.telegram.texts()
        assert asked.startswith(f"Container {WORKER} has failed: {FAILED}. Shall I restart it?")
        house.looks()
        assert house.engine.done == []
        running.send(message(1, "/approve 1"))
        eventually(lambda: house.states() == ["done"])
        eventually(lambda: house.told(f"Request 1: {WORKER} was restarted.") != [])
        house.engine.status[WORKER] = FAILED
        house.looks()
        assert house.engine.done == [RESTART]
        assert house.states() == ["done"]
    assert "request 1: done" in (house.folder / "logs/proactive.log").read_text()
    assert "request 1: done" not in (house.folder / "logs/reactive.log").read_text()


def test_a_no_is_kept_for_some_hours(house: House) -> None:
    with house.agent() as running:
        eventually(lambda: house.states() == ["open"])
        running.send(message(1, "/reject 1"))
        eventually(lambda: house.states() == ["rejected"])
        house.looks()
        assert house.states() == ["rejected"]
        query(
            house.database,
            "update approvals set decided_at = now() - interval '7 hours', ended_at = null",
        )
        eventually(lambda: house.states() == ["rejected", "open"])
    assert house.engine.done == []


@pytest.mark.parametrize(("before", "told"), [("open", 0), ("approved", 1)])
def test_nothing_is_done_when_it_is_too_late(house: House, before: str, told: int) -> None:
    with house.agent() as running:
        eventually(lambda: len(house.telegram.texts()) == 1)
        eventually(lambda: query(house.database, "select message_id from approvals") != [(None,)])
        late = "update approvals set state = %s, expires_at = now() - interval '1 second'"
        query(house.database, late, before)
        running.send(message(1, "/approve 1"))
        house.looks()
        assert house.states() == ["expired"]
    assert house.engine.done == []
    assert len(house.told("too late for me")) == told


def test_what_is_well_again_is_left_alone(house: House) -> None:
    with house.agent():
        eventually(lambda: house.states() == ["open"])
        house.engine.status[WORKER] = "Up 3 seconds"
        query(house.database, APPROVE)
        eventually(lambda: house.told("is well again, or gone: nothing was done") != [])
    assert house.engine.done == []


@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [(409, "failed", "it was not done ("), (500, "unknown", "I do not know whether it was done (")],
)
def test_a_try_that_fails_is_told_and_not_repeated(
    house: House, answer: int, state: str, told: str
) -> None:
    house.engine.answers.append(answer)
    with house.agent():
        eventually(lambda: house.states() == ["open"])
        query(house.database, APPROVE)
        eventually(lambda: house.states() == [state])
        house.looks()
        assert house.states() == [state]
    assert house.engine.done == [RESTART]
    assert len(house.told(told)) == 1


def test_a_full_disk_is_tidied_up(house: House) -> None:
    house.engine.status.clear()
    house.more = {"DISK_FREE_PERCENT": "101"}
    with house.agent():
        eventually(lambda: house.states() == ["open"])
        query(house.database, APPROVE)
        eventually(lambda: house.told("build cache were removed.") != [])
        house.looks()
    assert house.engine.done == ["/images/prune", "/build/prune"]


def test_half_a_tidying_up_is_told_as_such(house: House) -> None:
    house.engine.status.clear()
    house.engine.answers.extend((200, 403))
    house.more = {"DISK_FREE_PERCENT": "101"}
    with house.agent():
        eventually(lambda: house.states() == ["open"])
        query(house.database, APPROVE)
        why = "it was not done (the build cache: HTTP 403; images without a name were removed)."
        eventually(lambda: house.told(why) != [])
    assert house.states() == ["failed"]


def test_what_is_old_is_forgotten_and_what_is_at_work_is_not(house: House) -> None:
    house.engine.status.clear()
    days = "now() - interval '31 days'"
    statements = f"""
insert into telegram_updates (update_id, payload, state, received_at, next_try_at)
select n, '{{}}', case n when 1 then 'new' else 'answered' end, {days}, now() + interval '1 hour'
from generate_series(1, 700) n;
insert into approvals (kind, subject, digest, text, state, expires_at)
select 'deployment', s, '', '', s, {days} from unnest(array['rejected', 'approved']) s;
insert into notices (text, approval_id, state, created_at, topic) values
('a', 1, 'sent', {days}, null), ('b', 2, 'sent', {days}, 'x');
insert into notices (text, state, next_try_at, created_at) values
('c', 'new', now() + interval '1 hour', {days}), ('d', 'sent', now(), now());
insert into token_calls (day, month, model, purpose, reserved, settled_at)
values ('', '', '', '', 1, {days}), ('', '', '', '', 1, now());
"""  # noqa: S608 - ours
    for statement in statements.split(";")[:-1]:
        query(house.database, statement)
    with house.agent():
        left = (
            ("telegram_updates", "update_id", [1]),
            ("approvals", "id", [2]),
            ("notices", "id", [2, 3, 4]),
            ("token_calls", "id", [2]),
        )
        for table, key, kept in left:
            asked = f"select {key}::int from {table} order by 1"  # noqa: S608 - ours
            rows = [(number,) for number in kept]
            eventually(lambda it=asked, want=rows: query(house.database, it) == want)  # type: ignore[misc]


def test_an_old_backup_is_told_once(house: House) -> None:
    house.engine.status.clear()
    old = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    query(house.database, "insert into notices (text) values ('something else')")
    with house.agent():
        house.looks()
        house.backup(old)
        eventually(lambda: house.told("The newest backup is old: b.sql.gz") != [])
        (house.facts / "backup.json").write_text("garbage")
        eventually(lambda: house.told("No backup is known: ") != [])
        house.backup(old)
        house.looks()
    assert len(house.told("No backup is known: backup.json ")) == 1
    assert len(house.told("The newest backup is old: b.sql.gz, 2026-01-02 03:04 UTC, good.")) == 1
    lasting = "select text from notices where gone_at is null order by id"
    assert query(house.database, lasting)[0] == ("something else",)
    assert house.states() == []


def test_an_engine_that_cannot_be_asked_is_told_once(house: House) -> None:
    house.more = {"ENGINE_URL": f"http://127.0.0.1:{free_port()}"}
    blind = "I cannot see the containers: ConnectionError"
    with house.agent() as running:
        eventually(lambda: house.told(blind) != [])
        house.looks()
        eventually(lambda: running.get().json()["status"] == "ok")
        house.telegram.say("/status")
        eventually(lambda: len(house.telegram.texts()) == 2)
    assert blind in house.telegram.texts()[1].splitlines()
    assert len(house.told(blind)) == 1
    assert house.states() == []


def test_failed_containers_are_part_of_the_status(house: House) -> None:
    with house.agent() as running:
        eventually(lambda: house.states() == ["open"])
        running.send(message(1, "/status"))
        eventually(lambda: len(house.telegram.texts()) == 2)
    lines = "\n".join(house.telegram.texts()).splitlines()
    assert f"Container {WORKER} has failed: {FAILED}" in lines


@pytest.mark.parametrize(("word", "state"), [("approve", "done"), ("reject", "rejected")])
def test_what_fails_again_before_he_is_asked_again_is_told_once(
    house: House, word: str, state: str
) -> None:
    again = f"Container {WORKER} has failed: {FAILED}. Request 1 about that is {state}, I ask again"
    with house.agent() as running:
        eventually(lambda: house.states() == ["open"])
        running.send(message(1, f"/{word} 1"))
        eventually(lambda: house.states() == [state])
        house.engine.status[WORKER] = FAILED
        eventually(lambda: house.told(again) != [])
        house.looks()
    assert house.states() == [state]
    assert len(house.told(again)) == 1


def test_a_question_that_he_never_saw_is_no_answer(house: House) -> None:
    busy = Trouble(429, retry_after=3000, method="sendMessage")
    house.telegram.fail_next(busy)
    with house.agent():
        eventually(lambda: not house.telegram.troubles)
        query(house.database, LATE)
        query(house.database, "update notices set next_try_at = now()")
        eventually(lambda: house.states() == ["expired", "open"])
        eventually(lambda: len(house.telegram.texts()) == 1)
    assert "Request 2: " in house.telegram.texts()[0]


def kill(running: Running) -> None:
    running.process.kill()
    running.process.wait()


def test_killed_before_it_acts_it_acts_once(house: House) -> None:
    with house.agent("asks") as running:
        eventually(lambda: house.states() == ["open"])
        kill(running)
    with house.agent("waits") as running:
        house.looks()
        assert house.states() == ["open"]
        kill(running)
    query(house.database, APPROVE)
    with house.agent("acts") as running:
        eventually(lambda: house.states() == ["done"])
        kill(running)
    with house.agent("rests"):
        house.looks()
    assert house.engine.done == [RESTART]
    assert len(house.told("was restarted")) == 1


def test_killed_while_it_acts_it_does_not_act_again(house: House) -> None:
    house.engine.open.clear()
    with house.agent("acts") as running:
        eventually(lambda: house.states() == ["open"])
        query(house.database, APPROVE)
        eventually(lambda: house.engine.done != [])
        assert house.states() == ["running"]
        kill(running)
    house.engine.open.set()
    house.engine.status[WORKER] = FAILED
    with house.agent("tells"):
        eventually(lambda: house.states() == ["unknown"])
        house.looks()
        assert house.states() == ["unknown"]
    assert house.engine.done == [RESTART]
    assert len(house.told("Request 1: I was stopped while I was at it")) == 1


def test_who_loses_the_lead_loses_the_last_word(house: House) -> None:
    house.engine.open.clear()
    with ExitStack() as both:
        first = both.enter_context(house.agent("first"))
        eventually(lambda: house.states() == ["open"])
        both.enter_context(house.agent("second"))
        query(house.database, APPROVE)
        eventually(lambda: house.engine.done != [])
        query(house.database, CUT)
        eventually(lambda: house.states() == ["unknown"])
        house.engine.open.set()
        eventually(lambda: first.get().json()["checks"]["proactive"]["role"] == "standby")
        house.looks()
    assert house.engine.done == [RESTART]
    assert house.states() == ["unknown"]
    assert (len(house.told("Request 1")), house.told("was restarted")) == (2, [])


def test_killed_at_random_nothing_is_done_twice(house: House) -> None:
    names = [f"{OURS}w{number}" for number in range(12)]
    house.engine.status = dict.fromkeys(names, FAILED)
    chance, lives = random.Random(7), 0  # noqa: S311 - no secret
    while len(house.states()) < len(names) or {*house.states()} & {"open", "approved", "running"}:
        lives += 1
        with house.agent(f"life-{lives}") as running:
            query(house.database, APPROVE)
            seen = len(house.engine.done) + chance.randint(0, 3)
            eventually(lambda most=seen: settled(house) or len(house.engine.done) >= most)  # type: ignore[misc]
            kill(running)
    done = house.engine.done
    assert len(done) == len(set(done))
    ended = query(house.database, "select id, state from approvals order by id")
    assert {state for _, state in ended} <= {"done", "unknown"}
    for number, state in ended:
        reports = house.told(f"Request {number}: ")
        reports = [text for text in reports if text.startswith(f"Request {number}: ")]
        assert len(reports) == 1, (number, state, reports)


def settled(house: House) -> bool:
    """Tell whether nothing waits to be done; what was not asked yet, is soon."""
    query(house.database, APPROVE)
    found = house.states()
    return bool(found) and not {*found} & {"open", "approved", "running"}
