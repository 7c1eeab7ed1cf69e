"""This machine's own engine as the target: the same steps, the same detached work, no link."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sandbox.box import Box
from tests.e2e.conftest import ROOT, Developer, change_settings
from tests.support.ports import free_port

PROJECT = "shop-on-this-machine"


def docker(*words: str) -> str:
    done = subprocess.run(
        ("docker", *words), capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout.strip()


def remove_all() -> None:
    ours = f"label=com.docker.compose.project={PROJECT}"
    for name in docker("ps", "--all", "--quiet", "--filter", ours).split():
        docker("rm", "--force", "--volumes", name)
    docker("volume", "rm", "--force", f"{PROJECT}_deploy-proxy-data")
    docker("network", "rm", PROJECT, f"{PROJECT}_default")
    for name in docker("image", "ls", "--quiet", PROJECT).split():
        docker("image", "rm", "--force", name)


@pytest.fixture(scope="module")
def ann(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developer]:
    """A developer whose shop lives on this machine; the box lends nothing but its base images."""
    folder = tmp_path_factory.mktemp("local")
    clone = folder / "project"
    shutil.copytree(ROOT / "tests/e2e/shop", clone)
    shutil.copytree(ROOT / "fabfile", clone / "fabfile")
    shutil.copy(ROOT / "tasks.py", clone)
    (clone / ".gitignore").write_text("__pycache__/\n")
    found = Developer(box, clone)
    port = free_port()
    change_settings(
        clone / "invoke.yaml",
        {
            "deploy": {"host": "local", "project": PROJECT, "root": str(folder / "root")},
            "proxy": {"container": f"{PROJECT}_proxy", "network": PROJECT, "port": port},
        },
    )
    subprocess.run(("git", "init", "--quiet", "-b", "main", str(clone)), check=True, timeout=60)
    found.commit("behaviour", "good")
    try:
        yield found
    finally:
        remove_all()


def door(ann: Developer) -> str:
    return str(ann.document("status")["url"])


def test_a_release_goes_live_on_this_machine_alone(ann: Developer) -> None:
    for number in (1, 2):
        ann.commit("web.py", f"# {number}\n", append=True)
        ended = ann.inv("deploy")
        assert ended.code == 0, ended.said
    url = door(ann)
    answer = requests.get(url, timeout=5)
    assert answer.text.split()[-1] == ann.git("rev-parse", "HEAD")
    ports = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", f"{PROJECT}_proxy"))
    hosts = {item["HostIp"] for found in ports["PortBindings"].values() for item in found}
    assert hosts == {"127.0.0.1"}
    record = ann.document("report")
    assert record["availability"]["failed"] == 0
    assert [step["name"] for step in record["steps"]][-3:] == ["watch", "publish", "drain"]


def test_it_is_rolled_back_by_itself_and_by_hand(ann: Developer) -> None:
    before = ann.live()
    ann.commit("behaviour", "bad behind the proxy")
    ended = ann.inv("deploy")
    ann.back()
    assert ended.code == 4, ended.said
    assert ann.live() == before
    ended = ann.inv("rollback")
    assert ended.code == 0, ended.said
    assert "no migration runs" in ended.err
    assert ann.live() != before
    assert ann.inv("rollback").code == 3


def test_a_killed_caller_is_no_matter(ann: Developer) -> None:
    ann.commit("web.py", "# killed\n", append=True)
    with ann.begun("deploy", "→ start") as run:
        run.kill()
    ended = ann.inv("deploy", "--wait", "60")
    assert ended.code == 0, ended.said
    assert "lost its caller: the host brought it to its end" in ended.err
    assert ann.document("status")["lock"] is None


def test_nothing_of_it_is_left_elsewhere(ann: Developer) -> None:
    root = Path(ann.clone.parent / "root")
    assert {item.name for item in root.iterdir()} >= {"lib", "journal", "records", "proxy"}
    assert len(list((root / "proxy" / "live").iterdir())) == 1
    assert list(root.glob("**/*.part*")) == []
