"""What hosts, engines and test runners say, and what it means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import health, lock, smoke
from deploy.checks import machine
from deploy.checks.finding import State, stopping
from deploy.docker import engine
from deploy.docker.engine import Container
from deploy.health import Address, Answer
from deploy.lock import Owner
from deploy.outcome import DeployFailed, SmokeFailed, TestsFailed
from deploy.settings import Check, Deploy, Proxy, Settings
from deploy.smoke import Finding
from deploy.steps import make

SETTINGS = Settings(
    deploy=Deploy(project="shop", title="Shop", root="/srv/shop"),
    proxy=Proxy(container="shop_proxy", network="net"),
)
LINE = {
    "id": "1f",
    "name": "/shop_web",
    "image": "sha256:1",
    "status": "running",
    "exit_code": 0,
    "oom_killed": False,
    "restarts": 0,
    "health": "",
    "labels": {engine.RELEASE_LABEL: "r1"},
    "networks": {"net": {"IPAddress": "172.20.0.2"}},
}


def test_containers_are_read() -> None:
    (found,) = engine.parse_containers(json.dumps(LINE) + "\n")
    assert (found.name, found.release, found.running) == ("shop_web", "r1", True)
    assert health.address(found, SETTINGS) == Address("http://172.20.0.2:8000")
    assert engine.parse_containers("") == ()


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", json.dumps({**LINE, "networks": 3})])
def test_nonsense_about_containers_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(DeployFailed, match="makes no sense"):
        engine.parse_containers(text)


def test_a_container_off_the_network_is_named() -> None:
    with pytest.raises(DeployFailed, match="not on network net"):
        health.address(Container("1", "a", "i", "running"), SETTINGS)


def test_an_answer_is_read_behind_its_body() -> None:
    answer = health.parse_answer('{"a": 1}\nx\n#deploy-answer 503 0.250', "")
    assert (answer.status, answer.body, answer.seconds) == (503, '{"a": 1}\nx', 0.25)
    assert not answer.good


@given(st.text(max_size=100), st.text(max_size=50))
def test_no_answer_is_never_a_good_one(out: str, err: str) -> None:
    assert not health.parse_answer(out, err).good


def test_a_refused_connection_says_why() -> None:
    answer = health.parse_answer("\n#deploy-answer 000 0.001", "curl: (7) refused\n")
    assert answer.as_text() == "curl: (7) refused"


@pytest.mark.parametrize(
    ("path", "value"),
    [("a.b", 1), ("a", {"b": 1}), ("a.c", None), ("a.b.c", None), ("x", None)],
)
def test_a_field_of_an_answer(path: str, value: object) -> None:
    assert health.field('{"a": {"b": 1}}', path) == value
    assert health.field("<html>", path) is None


CHECK = Check(name="db", path="/health", field="checks.db", one_of=("ok", "True"))


@pytest.mark.parametrize(
    ("status", "body", "good"),
    [
        (200, '{"checks": {"db": "ok"}}', True),
        (200, '{"checks": {"db": true}}', True),
        (200, '{"checks": {"db": "gone"}}', False),
        (200, "not json", False),
        (503, '{"checks": {"db": "ok"}}', False),
        (0, "", False),
    ],
)
def test_a_check_is_judged(status: int, body: str, *, good: bool) -> None:
    assert smoke.judge(CHECK, Answer(status, body, 0.1)).ok is good


def test_disk_and_memory_are_judged_by_the_fullest() -> None:
    text = "memory 1000 500\ndisk 1000 400\ndisk 1000 10\nnonsense\ndisk a b\n"
    found = {item.name: item for item in smoke.resources(text, SETTINGS)}
    assert found["memory"].ok
    assert not found["disk"].ok
    assert "1 % free" in found["disk"].detail


def test_a_host_that_says_nothing_does_not_pass() -> None:
    assert not any(item.ok for item in smoke.resources("", SETTINGS))


def test_restarts_count_and_so_does_being_down() -> None:
    up = Container("1", "a", "i", "running")
    assert smoke.restarts((up,), SETTINGS).ok
    assert not smoke.restarts((), SETTINGS).ok
    assert not smoke.restarts((Container("1", "a", "i", "running", restarts=1),), SETTINGS).ok
    assert not smoke.restarts((up, Container("2", "b", "i", "exited")), SETTINGS).ok


def test_failed_smoke_tests_are_all_named() -> None:
    found = (
        Finding("a", ok=True, detail="fine"),
        Finding("b", ok=False, detail="bad"),
        Finding("c", ok=False, detail="worse"),
    )
    with pytest.raises(SmokeFailed, match="2 of 3 smoke tests failed: b, c") as caught:
        smoke.must_pass(found, "vps")
    assert caught.value.why == "b: bad\nc: worse"
    smoke.must_pass(found[:1], "vps")


PASSED = "TOTAL      100     10    90%\n==== 12 passed, 1 skipped in 3.1s ====\n"


def test_the_figures_of_a_test_run() -> None:
    assert make.parse_tests(PASSED) == {
        "passed": 12.0,
        "failed": 0.0,
        "errors": 0.0,
        "skipped": 1.0,
        "coverage": 90.0,
    }
    text = "TOTAL 10 1 2 0 87.50%\n1 failed, 2 passed, 1 error in 1s"
    found = make.parse_tests(text)
    assert (found["failed"], found["errors"], found["coverage"]) == (1.0, 1.0, 87.5)


@pytest.mark.parametrize(
    ("text", "code", "threshold", "says"),
    [
        ("1 failed, 2 passed in 1s", 1, 0, "1 tests failed"),
        ("", 2, 0, "exit code 2"),
        ("no tests ran", 0, 0, "No test has run"),
        (PASSED, 0, 90.5, "Coverage is 90 %"),
        ("3 passed in 1s", 0, 70, "not measured"),
    ],
)
def test_bad_figures_stop_a_deployment(text: str, code: int, threshold: float, says: str) -> None:
    with pytest.raises(TestsFailed, match=says):
        make.judge_tests(make.parse_tests(text), code, threshold, text)


def test_good_figures_do_not() -> None:
    make.judge_tests(make.parse_tests(PASSED), 0, 90, "")
    make.judge_tests(make.parse_tests("3 passed in 1s"), 0, 0, "")


OWNER = Owner("2026-01-01_00-00-00", "deploy", "ann", "laptop", "2026-01-01 00:00:00 UTC")


def test_the_owner_of_a_lock() -> None:
    assert lock.parse(json.dumps(vars(OWNER))) == OWNER
    assert "ann on laptop" in OWNER.as_text()
    for text in ("", "{}", "[]", "3", "null", '{"run": 1}'):
        assert lock.parse(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ((), False)),
        ("oom <no value>\ndie 137\n", (("137",), True)),
        ("die 0\ndie 3\n", (("0", "3"), False)),
        ("die\ngarbage here\n", ((), False)),
    ],
)
def test_how_a_container_ended_is_read_from_its_events(
    text: str, found: tuple[tuple[str, ...], bool]
) -> None:
    assert engine.parse_endings(text) == found


def test_what_a_host_lacks_is_told_in_sentences() -> None:
    seen = "compose none\npython old\ndown it is down\nfree 10 /\nfree 5000 /srv\nfree x /y\n"
    assert [item.what for item in stopping(machine.programs(seen, "vps"))] == [
        "vps has a Python older than 3.11",
        "no Docker engine answers on vps: it is down",
        "vps has no Docker Compose v2",
    ]
    (tools,) = machine.programs("missing git\nmissing tar\n", "vps")
    assert tools.as_text() == "vps has no git, tar (apt-get install)"
    assert not stopping(machine.programs("free 10 /\n", "vps"))
    (short,) = stopping(machine.disks(seen, "vps", 1024))
    assert short.what == "vps has 10 MB free on /, 1024 MB may be needed"
    assert machine.disks("", "vps", 1024) == ()


def test_what_a_host_has_is_told_with_its_versions() -> None:
    seen = "python 3.13.5\ncompose 2.26.1-4\nengine 26.1.5+dfsg1\nfree 5000 /\n"
    found = (*machine.programs(seen, "vps"), *machine.disks(seen, "vps", 1024))
    assert {item.state for item in found} == {State.OK}
    assert [item.what for item in found] == [
        "all are there",
        "3.13.5",
        "Docker 26.1.5+dfsg1",
        "Compose 2.26.1-4",
        "5000 MB are free on /, 1024 MB may be needed",
    ]
    (old,) = stopping(machine.programs("compose 1.29.2\n", "vps"))
    assert old.name == "compose"


def test_what_to_do_about_an_engine_follows_from_what_the_client_says() -> None:
    for why, cure in (("permission denied while trying", "usermod"), ("Is it running?", "start")):
        (engine_,) = stopping(machine.programs(f"down {why}\n", "vps"))
        assert cure in engine_.cure


@pytest.mark.parametrize(
    ("codes", "known", "said"),
    [
        (("1", "137"), True, "yes"),
        (("3",), True, "yes"),
        (("1", "137"), False, "perhaps, it was killed"),
        (("3",), False, "no"),
    ],
)
def test_who_was_killed_may_have_been_out_of_memory(
    codes: tuple[str, ...], *, known: bool, said: str
) -> None:
    assert health.out_of_memory(codes, known=known) == said
