"""Releases that are served in another way than the one before, and hosts that lost something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from sandbox.load import Load
from tests.e2e.conftest import Developer, change_settings

CRON = "  cron: {build: ., command: [python, worker.py]}\n"


@pytest.fixture(scope="module")
def ann(two_releases: Developer) -> Developer:
    return two_releases


@pytest.fixture(autouse=True)
def _as_it_was(ann: Developer) -> Iterator[None]:
    before = ann.git("rev-parse", "HEAD")
    yield
    ann.git("reset", "--quiet", "--hard", before)


def write(ann: Developer, name: str, *pairs: tuple[str, str]) -> None:
    """Replace texts in a file of the shop, each of which must be there."""
    path = ann.clone / name
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


ONLY_KNOWN = """            if self.path.startswith("/health"):
                self.answer(404, "not here")
            else:
                self.greet()
"""


def another_port(ann: Developer) -> None:
    write(ann, "web.py", ("PORT = 8080", "PORT = 8090"))
    write(ann, "compose.yml", ("8080:8080", "8090:8090"))
    change_settings(ann.clone / "invoke.yaml", {"app": {"port": 8090}})


def served_otherwise(ann: Developer) -> None:
    """Give it another port, another path for its health, another name, and one more service."""
    another_port(ann)
    write(ann, "web.py", ('"/health"', '"/healthz"'), ("            self.greet()\n", ONLY_KNOWN))
    write(ann, "compose.yml", ("  web:\n", f"{CRON}  api:\n"))
    app = {"services": ["api", "worker", "cron"], "health_path": "/healthz"}
    change_settings(ann.clone / "invoke.yaml", {"app": app})


def test_a_release_keeps_the_way_it_is_served(ann: Developer) -> None:
    write(ann, "web.py", ("            self.greet()\n", ONLY_KNOWN))
    ann.commit("behaviour", "good")
    assert ann.inv("deploy").code == 0
    write(ann, "web.py", (ONLY_KNOWN, "            self.greet()\n"))
    before = ann.live()
    served_otherwise(ann)
    ann.commit("behaviour", "bad behind the proxy")
    ended = ann.inv("deploy")
    assert ended.code == 4, ended.said
    assert ann.live() == before
    with Load(f"{ann.box.url}/") as load:
        ann.commit("behaviour", "good")
        ended = ann.inv("deploy")
        assert ended.code == 0, ended.said
        assert ann.live() != before
        ended = ann.inv("rollback")
        assert ended.code == 0, ended.said
        assert ann.live() == before
    assert load.figures().wrong == ()
    assert ann.document("report")["warnings"] == []


def test_a_bad_release_served_elsewhere_never_touches_the_live_one(ann: Developer) -> None:
    before = ann.live()
    with Load(f"{ann.box.url}/") as load:
        another_port(ann)
        ann.commit("behaviour", "exits at once")
        assert ann.inv("deploy").code == 3
        assert ann.live() == before
    assert load.figures().wrong == ()


def replicas(ann: Developer, number: int) -> None:
    path = ann.clone / "compose.yml"
    data = yaml.safe_load(path.read_text())
    data["services"]["web"].pop("ports", None)
    data["services"]["web"]["deploy"] = {"replicas": number}
    path.write_text(yaml.safe_dump(data))


def webs(ann: Developer) -> list[str]:
    return ann.on_host("docker ps --format '{{.Names}}' | grep -F web || true").split()


def test_every_replica_is_started_asked_and_missed(ann: Developer) -> None:
    replicas(ann, 3)
    for _ in range(2):
        ann.commit("behaviour", "good")
        ended = ann.inv("deploy")
        assert ended.code == 0, ended.said
        assert len(webs(ann)) == 3
    ann.on_host(f"docker stop {webs(ann)[0]}")
    assert ann.document("status")["healthy"] is False
    kept = "docker ps --all --filter status=exited --format '{{.Names}}' | grep -F web"
    names = ann.on_host(f"{kept} | grep -F {ann.document('status')['rollback']['id']}").split()
    ann.on_host(f"docker rm -f {' '.join(names[:2])}")
    ended = ann.inv("rollback")
    assert ended.code == 0, ended.said
    assert "its containers are gone" in ended.said
    assert len(webs(ann)) == 3
    assert ann.document("status")["healthy"] is True


def test_who_goes_forward_again_can_go_back(ann: Developer) -> None:
    ann.commit("behaviour", "good")
    assert ann.inv("deploy").code == 0
    last = ann.live()
    assert ann.inv("rollback").code == 0
    before = ann.live()
    assert ann.inv("rollback", "--to", last).code == 0
    assert ann.document("status")["rollback"]["id"] == before
    assert ann.inv("rollback").code == 0
    assert ann.live() == before


def test_a_rollback_brings_the_proxy_back(ann: Developer) -> None:
    ann.on_host("docker rm -f shop_proxy")
    ended = ann.inv("rollback")
    assert ended.code == 0, ended.said
    assert "the proxy did not run, and was started" in ended.err
    assert ann.document("status")["healthy"]


def test_no_name_stands_for_an_image_that_is_gone(ann: Developer) -> None:
    ann.commit("behaviour", "good")
    assert ann.inv("deploy").code == 0
    ann.on_host(f"docker image rm --force {ann.document('status')['rollback']['image']}")
    ended = ann.inv("rollback")
    assert ended.code == 0, ended.said
    tags = ann.on_host("docker image ls --format '{{.Repository}}:{{.Tag}}'").split()
    assert "shop:latest" not in tags
    assert ann.inv("deploy").code == 0
    assert "shop:latest" in ann.on_host("docker image ls --format '{{.Repository}}:{{.Tag}}'")
