"""A release is served by what it was made with, here and on its host, whatever is set by now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy import releases, traffic
from deploy.releases import Release
from deploy.served import own, remembered, section
from deploy.settings import App, Deploy, Proxy, Settings

NOW = Settings(
    deploy=Deploy(project="shop", title="Shop", root="/srv/shop"),
    proxy=Proxy(container="c", network="n"),
    app=App(services=("api", "worker"), port=8090, health_path="/healthz"),
)
THEN = NOW.model_copy(update={"app": App(services=("web",), port=8080)})
MADE = Release("r1", "sha", "main", "shop:1", "noon", served=remembered(THEN))


def test_what_it_was_made_with_counts_here_and_on_its_host() -> None:
    assert own(NOW, MADE) == THEN
    there = own(section(NOW.model_dump(mode="json")), MADE)
    assert (list(there.app.services), there.app.port) == (["web"], 8080)
    assert there.deploy.project == "shop"
    assert traffic.upstream_of(NOW, MADE) == "web-r1_8080"
    assert "web-r1" in traffic.names_of(NOW, MADE)


@pytest.mark.parametrize(
    "served", [{}, {"app": 3}, {"app": {"services": []}}, {"app": {"hots": 1}, "smoke": {}}]
)
def test_what_nobody_understands_counts_for_nothing(served: dict[str, object]) -> None:
    assert own(NOW, replace(MADE, served=served)) == NOW
    assert own(NOW, None) == NOW


def test_who_goes_forward_again_leaves_nothing() -> None:
    old = replace(MADE, id="old", state="good", live_at="2026-01-03")
    left = replace(MADE, id="left", state="left", live_at="2026-01-02")
    assert releases.passed_over((old, left), left, old) == ()
    back = replace(left, state="good", live_at="2026-01-01")
    assert [item.id for item in releases.passed_over((old, back), back, old)] == ["old"]
