"""Somebody stops a run: by a key, twice, at the wrong moment, while something runs on the host."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sandbox import bot_api
from sandbox.bot_api import MASTER, TOKEN, BotApi
from sandbox.shell import until
from tests.e2e.conftest import LONG, Developer, Going, change_settings, dropping, going, press

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SERVICES = ["shop-web", "shop-worker", "shop_proxy"]
FAB = ("-m", "fabric", "-H", "vps")
# What a run starts on its host has its mark, but for what runs detached.
MARKED = "grep -lsz ^DEPLOY_LINK= /proc/[0-9]*/environ | wc -l; true"


@pytest.fixture(scope="module")
def ann(two_releases: Developer) -> Developer:
    """A developer whose host can fetch what it deploys."""
    two_releases.on_host("git init -q --bare -b main /srv/shop.git")
    change_settings(two_releases.clone / "invoke.yaml", {"git": {"url": "file:///srv/shop.git"}})
    push(two_releases)
    return two_releases


def push(ann: Developer) -> None:
    """Commit what is there, for both ways to deploy it."""
    ann.commit("web.py", "# again\n", append=True)
    ssh = f"core.sshCommand=ssh -F '{ann.box.ssh_config}'"
    ann.git("-c", ssh, "push", "-q", "--force", "ssh://vps/srv/shop.git", "main")


def as_before(ann: Developer, before: str, code: int) -> None:
    """See that a run ended with nothing changed, and that all who tell of it agree."""
    free = until(lambda: ann.document("status")["lock"] is None, deadline=LONG, every=0.2)
    assert free
    assert ann.live() == before
    assert ann.document("report")["code"] == code
    assert sorted(ann.on_host("docker ps --format '{{.Names}}'").split()) == SERVICES
    assert ann.on_host(MARKED) == "0"


def stopped(run: Going, number: signal.Signals, after: float, times: int = 1) -> int:
    """Stop a run some time after the host was asked to take over; return its exit code."""
    run.reach("→ cutover")
    time.sleep(after)  # the moment is what is tested, and no moment may be wrong
    for _ in range(times):
        run.process.send_signal(number)
        time.sleep(0.02)
    return run.end().code


@pytest.mark.parametrize(("tool", "number"), [("inv", signal.SIGINT), ("fab", signal.SIGTERM)])
def test_stopped_while_the_host_takes_over(
    ann: Developer, said: Path, tool: str, number: signal.Signals
) -> None:
    before = ann.live()
    words = (*FAB, "deploy") if tool == "fab" else ("-m", "invoke", "deploy")
    for after in (0.0, 0.05, 0.1, 0.2):
        push(ann)
        with going(ann, said, *words) as run:
            assert stopped(run, number, after) == CODES[number], (after, said.read_text())
        as_before(ann, before, CODES[number])


def test_a_key_that_was_pressed_twice_was_pressed_once(ann: Developer, said: Path) -> None:
    before = ann.live()
    ann.commit("behaviour", "starts after 3")
    with going(ann, said) as run:
        assert stopped(run, signal.SIGINT, 0.05, times=2) == 130, said.read_text()
    as_before(ann, before, 130)
    ann.back()


def test_who_insists_is_let_go_and_the_host_stops_by_itself(ann: Developer, said: Path) -> None:
    before = ann.live()
    ann.commit("behaviour", "ignores the signal")  # so that undoing takes a while
    change_settings(ann.clone / "invoke.yaml", {"smoke": {"watch_seconds": 60}})
    with going(ann, said) as run:
        run.reach("→ watch")
        run.process.send_signal(signal.SIGINT)
        run.reach("stopping")
        assert until(lambda: insisted(run), deadline=LONG, every=1.2)
        assert run.end().code == 130
    change_settings(ann.clone / "invoke.yaml", {"smoke": {"watch_seconds": 1}})
    as_before(ann, before, 130)
    ann.back()


def insisted(run: Going) -> bool:
    """Press the key once more; tell whether that, or the end of the run, has let us go."""
    run.process.send_signal(signal.SIGINT)
    return run.process.poll() is not None


def test_a_wish_is_told_again_when_the_link_has_stalled(ann: Developer, said: Path) -> None:
    before = ann.live()
    ann.commit("behaviour", "starts after 80")
    with going(ann, said) as run:
        run.reach("→ health")
        with dropping(ann.box):
            run.process.send_signal(signal.SIGINT)
            run.reach("attaching again")
            ended = run.end()
    assert ended.code == 130, ended.said
    as_before(ann, before, 130)
    ann.back()


def test_a_build_on_the_host_ends_with_who_wanted_it(ann: Developer, said: Path) -> None:
    before = ann.live()
    ann.commit("Dockerfile", "RUN echo building && sleep 120\n", append=True)
    push(ann)
    with going(ann, said, *FAB, "deploy") as run:
        run.reach("| ")
        assert until(lambda: building(ann), deadline=LONG, every=0.1)
        run.process.send_signal(signal.SIGINT)
        assert run.end().code == 130
    assert not building(ann)
    as_before(ann, before, 130)
    ann.git("reset", "--quiet", "--hard", "HEAD~2")


def building(ann: Developer) -> bool:
    return bool(ann.on_host("pgrep -f 'docke[r].* buil[d] ' || true"))


SLOW = {"migrate": {"command": ["python", "-c", "import time; print('begun'); time.sleep(120)"]}}


def test_a_migration_ends_with_who_wanted_it(ann: Developer, said: Path) -> None:
    before = ann.live()
    settings = ann.clone / "invoke.yaml"
    text = settings.read_text()
    change_settings(settings, SLOW)
    with going(ann, said) as run:
        run.reach("→ migrate")
        assert until(lambda: "-run-" in names(ann), deadline=LONG, every=0.1)
        run.process.send_signal(signal.SIGTERM)
        assert run.end().code == 143
    settings.write_text(text)
    as_before(ann, before, 143)


def names(ann: Developer) -> str:
    return ann.on_host("docker ps --format '{{.Names}}'")


GATE = """
services:
  db: {build: ., command: [sleep, infinity], volumes: [data:/data]}
  test:
    build: .
    depends_on: [db]
    command: [python, -c, "import time; print('begun', flush=True); time.sleep(120)"]
volumes: {data: {}}
"""
LEFT = """
docker ps --all --format '{{.Names}}'
docker network ls --format '{{.Name}}'
docker volume ls --format '{{.Name}}'
docker image ls --format '{{.Repository}}'
"""


def left_by_gates(ann: Developer, tool: str) -> str:
    """Return what there is of the shop's tests, where that tool runs them."""
    if tool == "fab":
        text = ann.on_host(LEFT)
    else:
        argv = ("bash", "-c", LEFT)
        text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    return "\n".join(line for line in text.splitlines() if line.startswith("shop-test-"))


@pytest.mark.parametrize("tool", ["inv", "fab"])
def test_tests_that_are_stopped_leave_nothing(ann: Developer, said: Path, tool: str) -> None:
    before = ann.live()
    ann.commit("gate.yml", GATE)
    settings = ann.clone / "invoke.yaml"
    text = settings.read_text()
    change_settings(settings, {"tests": {"compose_file": "gate.yml", "coverage_threshold": 0}})
    push(ann)
    words = (*FAB, "deploy") if tool == "fab" else ("-m", "invoke", "deploy")
    for number in (signal.SIGINT, signal.SIGKILL):
        with going(ann, said, *words) as run:
            run.reach("| begun")
            run.process.send_signal(number)
            run.end()
        if number == signal.SIGINT:
            assert left_by_gates(ann, tool) == ""
            as_before(ann, before, 130)
    settings.write_text(text)
    assert ann.inv("deploy", "--wait", "60").code == 0
    assert left_by_gates(ann, tool) == ""


def test_a_git_that_was_killed_stops_no_later_one(ann: Developer) -> None:
    push(ann)
    ann.on_host("touch /opt/shop/repo/config.lock /opt/shop/repo/refs/heads/main.lock")
    ended = ann.fab("deploy")
    assert ended.code == 0, ended.said


@pytest.fixture
def master(ann: Developer) -> Iterator[BotApi]:
    """A Bot API here, which is where the pipeline asks it."""
    with bot_api.served(BotApi(control=True)) as api:
        yield api


def asking(ann: Developer, said: Path, api: BotApi) -> AbstractContextManager[Going]:
    """Begin a deployment that needs the Master's word."""
    ann.commit("web.py", "# again\n", append=True)
    return going(ann, said, "-m", "invoke", "deploy", "--require-approval", **bot(api))


def bot(api: BotApi) -> dict[str, str]:
    """Return the environment of who has a bot there."""
    known = {"TELEGRAM_API_TOKEN": TOKEN, "MASTER_CHAT_ID": MASTER}
    return {**known, "TELEGRAM_API_BASE": api.url}


def closed(api: BotApi) -> str:
    (edit,) = api.edits
    assert not edit["reply_markup"]
    return str(edit["text"]).splitlines()[-1]


def test_the_master_says_no(ann: Developer, said: Path, master: BotApi) -> None:
    before = ann.live()
    plan = json.loads(ann.inv("plan", "--require-approval", "--json", **bot(master)).out)
    (line,) = [item for item in plan["steps"] if item["name"] == "approve"]
    assert (line["will"], line["why"]) == ("wait", "for the Master, at most 1800 s")
    with asking(ann, said, master) as run:
        run.reach("waiting for the Master's word")
        held = ann.document("status")["lock"]
        assert held["step"] == "approve"
        press(master.url, "reject")
        assert run.end().code == 6, said.read_text()
    as_before(ann, before, 6)
    assert "The Master has rejected the deployment" in said.read_text()
    assert ann.document("report")["approval"]["decision"] == "rejected"
    assert closed(master) == "❌ Rejected."


def test_the_master_says_nothing(ann: Developer, said: Path, master: BotApi) -> None:
    before = ann.live()
    change_settings(ann.clone / "invoke.yaml", {"approval": {"timeout": 1}})
    with asking(ann, said, master) as run:
        assert run.end().code == 6, said.read_text()
    change_settings(ann.clone / "invoke.yaml", {"approval": {"timeout": 600}})
    as_before(ann, before, 6)
    assert closed(master) == "⌛ Nobody has decided in time."


def test_who_does_not_want_to_wait_for_the_master(
    ann: Developer, said: Path, master: BotApi
) -> None:
    before = ann.live()
    with asking(ann, said, master) as run:
        run.reach("waiting for the Master's word")
        run.process.send_signal(signal.SIGINT)
        assert run.end().code == 130, said.read_text()
    as_before(ann, before, 130)
    assert closed(master) == "Withdrawn: the run has ended."
    ended = ann.inv("deploy", "--require-approval")
    assert (ended.code, len(ann.document("history", "--limit", "1"))) == (7, 1)
    assert "TELEGRAM_API_TOKEN and MASTER_CHAT_ID must be set" in ended.err


def test_the_master_says_yes_to_what_the_host_fetches(
    ann: Developer, said: Path, master: BotApi
) -> None:
    push(ann)
    with going(ann, said, *FAB, "deploy", "--require-approval", **bot(master)) as run:
        run.reach("waiting for the Master's word")
        press(master.url, "approve")
        assert run.end().code == 0, said.read_text()
    record = ann.document("report")
    assert (record["approval"]["decision"], record["approval"]["heard_by"]) == (
        "approved",
        "the pipeline",
    )
    assert ann.live() == record["release"]
    assert closed(master) == "✅ Approved."
