"""What the application may read, written at the end of runs that went well or did not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy import journal
from deploy.command import Command
from deploy.conduct import conduct
from deploy.detached import work
from deploy.host import Host, Process
from deploy.outcome import DeployFailed
from deploy.pipeline import Done, Step
from deploy.run import Caller, Run
from deploy.settings import Deploy, Proxy, Settings
from deploy.steps import prepare
from tests.support.container import SECRET

LOCK = Step("lock", (), prepare.take_lock, "take the lock")


@pytest.fixture
def run(here: Host, tmp_path: Path) -> Run:
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root=str(tmp_path / "root")),
        proxy=Proxy(container="shop_proxy", network="shop"),
    )
    caller, now = Caller(f"ann {SECRET}", "laptop", "inv"), datetime.now(UTC)
    return Run("deploy", settings, tmp_path, here, here, here.log, caller, now)


def told(run: Run) -> Any:
    return json.loads(Path(run.layout.public, "history.json").read_text())


def fail(_run: Run) -> Done:
    raise DeployFailed("It does not start")


def test_a_run_is_told_however_it_ended_and_without_secrets(run: Run) -> None:
    with pytest.raises(DeployFailed):
        conduct(run, (LOCK, Step("start", ("lock",), fail, "start")))
    (item,) = told(run)
    assert (item["id"], item["code"], item["outcome"]) == (run.id, 3, "failed")
    assert item["who"] == "ann ***"


def test_what_cannot_be_told_is_a_warning(run: Run) -> None:
    Path(run.layout.root).mkdir()
    Path(run.layout.public).write_text("in the way")
    record = conduct(run, (LOCK,))
    assert record["code"] == 0
    log = Path(run.layout.log(run.started)).read_text()
    assert "outcome: success (exit code 0)" in log
    assert Path(run.layout.public).read_text() == "in the way"


def test_a_host_that_goes_on_by_itself_tells_it_too(run: Run) -> None:
    for folder in run.layout.folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
    work._finish(run, None)
    assert [item["id"] for item in told(run)] == [run.id]


def test_it_costs_one_trip_to_the_host(run: Run) -> None:
    conduct(run, (LOCK,))
    start = run.target.start
    began: list[Command] = []

    def counted(what: Command) -> Process:
        began.append(what)
        return start(what)

    run.target = replace(run.target, start=counted)
    journal.keep_public(run)
    assert len(began) == 1
