"""Faults of the world around a run: links, firewalls, engines, machines, disks and clocks.

Each is brought about at a stated moment of a real deployment, while requests arrive at the front
door; then the next deployment must find everything, say it, and end well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import contents
from sandbox.box import Box
from sandbox.load import Load
from sandbox.shell import must, until
from tests.e2e.conftest import Developer, Ended, clean

LIVE = ["shop-web", "shop-worker", "shop_proxy"]
LONG = 300  # seconds that any of it may take on a busy machine


@dataclass(frozen=True)
class Going:
    """A run that goes on by itself, and what it has said so far."""

    process: subprocess.Popen[bytes]
    said: Path

    def reach(self, line: str) -> None:
        """Wait for a line of its progress."""

        def there() -> bool:
            return line in self.said.read_text() or self.process.poll() is not None

        assert until(there, deadline=LONG, every=0.02)
        assert line in self.said.read_text(), self.said.read_text()

    def end(self) -> Ended:
        """Wait for its end."""
        self.process.wait(LONG)
        return Ended(self.process.returncode, "", self.said.read_text())


@contextmanager
def going(ann: Developer, said: Path, *argv: str, **env: str) -> Iterator[Going]:
    """Begin a deployment, or what the arguments say instead."""
    words = argv or ("-m", "invoke", "deploy")
    with (
        said.open("wb") as stream,
        subprocess.Popen(
            (sys.executable, *words),
            cwd=ann.clone,
            env={**clean(os.environ), "STARTUP_WAIT": "90", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        ) as process,
    ):
        try:
            yield Going(process, said)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def ann(box: Box, shop: Developer) -> Developer:
    """A developer with two good releases, the second of them live."""
    contents.reset(box)
    shop.on_host("rm -rf /opt/shop")
    for number in (1, 2):
        shop.commit("web.py", f"# {number}\n", append=True)
        ended = shop.inv("deploy")
        assert ended.code == 0, ended.said
    return shop


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


def in_box(box: Box, text: str) -> str:
    """Run a shell text in the box, without a connection over SSH."""
    argv = ("docker", "exec", box.container, "bash", "-euo", "pipefail", "-c", text)
    return must(argv, deadline=60, next_step="docker ps").strip()


def live_now(ann: Developer) -> str:
    """Return the commit that answers at the front door."""
    return ann.on_host("curl -sf http://127.0.0.1:8000/").split()[-1][:7]


def next_run(ann: Developer) -> list[str]:
    """Deploy something good; see that all is well then, and return what was said of before."""
    ann.commit("behaviour", "good")
    ended = ann.inv("deploy", "--wait", "120")
    assert ended.code == 0, ended.said
    well(ann)
    return warnings(ended)


def well(ann: Developer) -> None:
    """See that one healthy release serves, alone, and that the one before it is good."""
    status = ann.document("status")
    assert status["healthy"], status
    assert status["lock"] is None
    assert sorted(ann.on_host("docker ps --format '{{.Names}}'").split()) == LIVE
    good = {item["release"] for item in ann.document("history") if item["code"] == 0}
    assert status["release"]["id"] in good
    assert status["rollback"]["id"] in good
    assert status["rollback"]["id"] != status["release"]["id"]
    asked = "docker image inspect --format '{{.Id}}' shop:rollback"
    assert ann.on_host(asked) == status["rollback"]["image"]


def warnings(ended: Ended) -> list[str]:
    """Return what a run warned of."""
    lines = ended.err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def cut(box: Box) -> None:
    """End every connection over SSH, from the side of the host."""
    in_box(box, "pkill -KILL -x sshd-session")


def test_a_link_that_is_cut_before_the_host_takes_over_ends_the_run(
    ann: Developer, said: Path
) -> None:
    before = ann.live()
    ann.commit("behaviour", "starts after 1")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ build")
        cut(ann.box)
        ended = run.end()
    assert ended.code == 8, ended.said
    assert "The link to the host was lost, and the lock with it" in ended.err
    assert load.figures().wrong == ()
    assert ann.live() == before
    told = next_run(ann)
    assert len(told) == 1, told
    assert "lost its link to the host: unreachable" in told[0]


def test_a_link_that_is_cut_while_the_host_works_is_made_anew(ann: Developer, said: Path) -> None:
    ann.commit("behaviour", "starts after 8")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ health")
        cut(ann.box)
        ended = run.end()
    assert ended.code == 0, ended.said
    assert "the host goes on by itself, attaching again" in ended.err
    assert load.figures().wrong == ()
    well(ann)
    assert next_run(ann) == []
