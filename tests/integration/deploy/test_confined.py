"""The tests of a commit, run by the real engine: what they are refused, and what they never see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.host import Host
from deploy.outcome import Invalid
from deploy.run import Caller, Run
from deploy.settings import Deploy, Proxy, Settings
from deploy.settings.schema import Tests
from deploy.steps import make
from sandbox import images
from tests.support.container import IMAGES, SECRET, docker

Prepared = Callable[[str], Run]
GOOD = """
services:
  test:
    build: .
    image: deploy-test-taken
    command:
      - sh
      - -c
      - |
        echo "saw=$$POSTGRES_PASSWORD$$TELEGRAM_API_TOKEN${SECRET_WORD:-}"
        cat /scratch/x
        echo 1 passed
    environment: [TELEGRAM_API_TOKEN, SECRET_WORD]
    env_file: own.env
    volumes: ["data:/scratch"]
    depends_on: {before: {condition: service_completed_successfully}}
  before:
    image: %s
    command: [sh, -c, "echo shared >/scratch/x"]
    volumes: ["data:/scratch"]
volumes:
  data:
"""
REACHING = """
services:
  test:
    image: %s
    user: root
    command: [sh, -c, "touch /host%s; echo 1 passed"]
    volumes: ["/:/host"]
"""


@pytest.fixture
def prepared(here: Host, tmp_path: Path) -> Iterator[Prepared]:
    """Give a run that has fetched a commit with this file of tests."""
    images.ensure((IMAGES[0],))
    settings = Settings(
        deploy=Deploy(project="confined", title="Shop", root=str(tmp_path / "root")),
        proxy=Proxy(container="shop_proxy", network="net"),
        tests=Tests(compose_file="test.yml", coverage_threshold=0),
    )
    caller, now = Caller("ann", "laptop", "fab"), datetime.now(UTC)
    run = Run("deploy", settings, tmp_path, here, here, here.log, caller, now)
    run.build_folder = str(tmp_path / "release" / "source")
    folder = Path(run.build_folder)
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(f"FROM {IMAGES[0]}\n")
    (folder / "own.env").write_text("POSTGRES_PASSWORD=test\n")
    (tmp_path / "host.env").write_text(f"POSTGRES_PASSWORD={SECRET}\nSECRET_WORD={SECRET}\n")

    def with_tests(text: str) -> Run:
        (folder / "test.yml").write_text(text)
        return run

    yield with_tests
    project = make.gate(settings, run.id, run.mark)
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={project}")


def test_tests_that_reach_for_the_host_are_refused_before_anything_of_them_runs(
    prepared: Prepared, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    run = prepared(REACHING % (IMAGES[0], written))
    with pytest.raises(Invalid, match="service test: volumes /:/host") as caught:
        make.test(run)
    assert caught.value.code == 7
    assert caught.value.where == "test.yml"
    assert not written.exists()


def test_tests_in_containers_of_their_own_run_and_see_nothing_of_the_caller(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEGRAM_API_TOKEN", SECRET)
    run = prepared(GOOD % IMAGES[0])
    Path(run.build_folder, ".env").symlink_to(tmp_path / "host.env")
    assert make.test(run).note == "1 passed, coverage 0 %"
    said = [line.split()[-1] for line in run.log.take().decode().splitlines()]
    assert "saw=test" in said
    assert "shared" in said
    assert not docker("images", "--quiet", "deploy-test-taken")
    assert "tests.yml" not in {path.name for path in Path(run.build_folder).iterdir()}


@pytest.mark.parametrize("name", ["test.yml", "own.env", "Dockerfile"])
def test_a_link_out_of_the_commit_is_not_followed(
    prepared: Prepared, tmp_path: Path, name: str
) -> None:
    run = prepared(GOOD % IMAGES[0])
    elsewhere = tmp_path / name
    link = Path(run.build_folder, name)
    link.rename(elsewhere)
    Path(run.build_folder, "between").symlink_to("..")
    link.symlink_to(f"between/../../{name}" if name == "own.env" else elsewhere)
    with pytest.raises(Invalid, match=f"{name} leads out of the commit's files") as caught:
        make.test(run)
    assert "link" in caught.value.why


def test_a_link_within_the_commit_is_one_of_its_files(prepared: Prepared) -> None:
    run = prepared(GOOD % IMAGES[0])
    link = Path(run.build_folder, "own.env")
    link.rename(link.with_name("other.env"))
    link.symlink_to("other.env")
    assert make.test(run).note == "1 passed, coverage 0 %"


def test_the_image_of_a_release_is_built_of_no_file_of_the_host(
    prepared: Prepared, tmp_path: Path
) -> None:
    run = prepared("")
    Path(run.build_folder, "Dockerfile").unlink()
    Path(run.build_folder, "Dockerfile").symlink_to(tmp_path / "host.env")
    with pytest.raises(Invalid, match="Dockerfile leads out of the commit's files"):
        make.build(run)
