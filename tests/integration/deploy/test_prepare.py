"""The code's way to a host, on this machine: what a fetch that fails leaves behind."""

from __future__ import annotations

import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy import recover, releases
from deploy.host import Host
from deploy.outcome import DeployFailed, TestsFailed
from deploy.pipeline import Done, Step, execute
from deploy.run import Caller, Run
from deploy.settings import Deploy, Proxy, Settings
from deploy.settings.schema import Git
from deploy.steps import prepare
from tests.support.disk import small_disk

AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
FETCH = Step("fetch", (), prepare.fetch_there, "fetch the code", prepare.abandon)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A repository that is small, and whose export is not."""
    folder = tmp_path / "code"
    folder.mkdir()
    for number in range(200):
        (folder / f"file-{number}").write_bytes(b"x" * 20_000)
    words = (("init", "-q", "-b", "main"), ("add", "--all"), (*AUTHOR, "commit", "-qm", "one"))
    for argv in words:
        subprocess.run(("git", "-C", str(folder), *argv), check=True, timeout=60)
    return folder


def run_of(here: Host, root: Path, code: Path) -> Run:
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root=str(root)),
        proxy=Proxy(container="shop_proxy", network="net"),
        git=Git(url=f"file://{code}"),
    )
    caller, now = Caller("ann", "laptop", "fab"), datetime.now(UTC)
    run = Run("deploy", settings, code, here, here, here.log, caller, now)
    Path(run.layout.releases).mkdir(parents=True, exist_ok=True)
    return run


def test_of_a_release_that_was_not_fetched_nothing_stays(
    here: Host, tmp_path: Path, code: Path
) -> None:
    with small_disk(tmp_path / "small", "2m") as root:
        run = run_of(here, root, code)
        with pytest.raises(DeployFailed, match="The disk of local is full"):
            execute(run, (FETCH,))
        assert list(Path(run.layout.releases).iterdir()) == []
        assert run.warnings == []


def test_of_a_release_that_failed_later_its_code_and_its_state_stay(
    here: Host, tmp_path: Path, code: Path
) -> None:
    def fail(_run: Run) -> Done:
        raise TestsFailed("1 test failed")

    run = run_of(here, tmp_path / "root", code)
    with pytest.raises(TestsFailed):
        execute(run, (FETCH, Step("test", ("fetch",), fail, "run the tests")))
    (release,) = releases.load(here, run.layout)
    assert release.state == "failed"
    assert len(list(Path(run.build_folder).iterdir())) == 200


def test_what_another_run_of_the_same_second_builds_in_stays(
    here: Host, tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, other = (run_of(here, tmp_path / "root", code) for _ in range(2))
    other.started = killed.started
    folders = [
        Path(tempfile.mkdtemp(prefix=prepare.scratch(run.id, run.mark))) for run in (killed, other)
    ]
    left = {"run": killed.id, "lines": [{"mark": killed.mark}], "plan": None}
    recover._remove_trials(killed, left)
    assert [folder.exists() for folder in folders] == [False, True]
