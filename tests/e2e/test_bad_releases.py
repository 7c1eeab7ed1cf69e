"""Releases that are bad in different ways, and what becomes of each."""

from __future__ import annotations

import pytest
import requests

from tests.e2e.conftest import Developer, change_settings


@pytest.fixture(scope="module")
def ann(shop: Developer) -> Developer:
    """A developer with one good release live."""
    ended = shop.inv("deploy")
    assert ended.code == 0, ended.said
    return shop


def held_to(ann: Developer, before: str) -> None:
    """See that the release before is live, alone, and answers as itself."""
    assert ann.live() == before
    names = ann.on_host("docker ps --format '{{.Names}}'").split()
    assert sorted(names) == ["shop-web", "shop-worker", "shop_proxy"]
    assert requests.get(ann.box.url, timeout=5).text.split()[-1][:7] == before.rpartition("-")[2]


REFUSED = {
    "another port": (3, "did not become healthy within", "Connection refused|Could not connect"),
    "exits at once": (3, "did not become healthy", "exit code 0"),
    "takes all memory": (3, "did not become healthy", "out of memory: yes|out of memory: perhaps"),
    "every second answer an error": (4, "smoke tests failed", "wanted 200, got 500"),
    "dies under traffic": (4, "did not stay well", "exit code 3"),
    "bad behind the proxy": (4, "smoke tests failed", "wanted 200"),
}


@pytest.mark.parametrize("behaviour", REFUSED)
def test_a_bad_release_is_refused_or_taken_back(ann: Developer, behaviour: str) -> None:
    before = ann.live()
    target = ann.document("status")["rollback"]
    code, what, why = REFUSED[behaviour]
    ann.commit("behaviour", behaviour)
    if behaviour == "dies under traffic":  # five seconds later
        change_settings(ann.clone / "invoke.yaml", {"smoke": {"watch_seconds": 8}})
    ended = ann.inv("deploy")
    ann.back()
    assert ended.code == code, ended.said
    assert what in ended.err
    assert any(part in ended.err for part in why.split("|")), ended.err
    record = ann.document("report")
    assert record["code"] == code
    assert any(part in record["error"]["error"] for part in why.split("|"))
    assert ann.document("status")["rollback"] == target
    held_to(ann, before)


def test_why_it_did_not_become_healthy_is_told_in_full(ann: Developer) -> None:
    ann.commit("behaviour", "another port")
    ended = ann.inv("deploy")
    ann.back()
    assert ended.code == 3
    for part in ("GET http://", ":8080/health", "settings: port 8080", "exit code 0", "memory: no"):
        assert part in ended.err


def test_one_that_starts_slowly_is_given_its_time(ann: Developer) -> None:
    ann.commit("behaviour", "starts slowly")
    ended = ann.inv("deploy", STARTUP_WAIT="60")
    assert ended.code == 0, ended.said
    record = ann.document("report")
    seconds = {step["name"]: step["seconds"] for step in record["steps"]}
    assert 35 < seconds["health"] < 60
    assert record["availability"]["failed"] == 0


@pytest.mark.parametrize("behaviour", ["ignores the signal", "floods its log"])
def test_a_rude_release_goes_live_and_is_replaced(ann: Developer, behaviour: str) -> None:
    ann.commit("behaviour", behaviour)
    assert ann.inv("deploy").code == 0
    ann.commit("behaviour", "good")
    ended = ann.inv("deploy")
    assert ended.code == 0, ended.said
    assert ann.document("report")["availability"]["failed"] == 0
    held_to(ann, ann.live())
