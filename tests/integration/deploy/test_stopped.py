"""A database container that is there and does not run."""

from __future__ import annotations

import uuid
from pathlib import Path

from deploy.host import Host
from deploy.postgres import access
from deploy.settings import Deploy, Proxy, Settings
from deploy.settings.schema import Database
from tests.support.container import IMAGES, docker


def test_a_stopped_database_is_named(here: Host, tmp_path: Path) -> None:
    name = f"deploy-test-{uuid.uuid4().hex[:8]}"
    settings = Settings(
        deploy=Deploy(project=name, title="Shop", root=str(tmp_path)),
        proxy=Proxy(container=name, network=name),
        database=Database(service="db"),
    )
    assert access.database(here, settings) is None
    assert "set database.service" in access.none_runs(here, settings).next_step
    labels = (f"project={name}", "service=db", "oneoff=False")
    words = [word for label in labels for word in ("--label", f"com.docker.compose.{label}")]
    docker("create", "--name", name, *words, IMAGES[0])
    try:
        found = access.none_runs(here, settings)
        assert (found.where, found.why) == (here.name, f"{name} is stopped")
        assert found.next_step == f"docker start {name}; docker logs {name}"
    finally:
        docker("rm", "--force", "--volumes", name)


def test_where_none_is_configured_nothing_is_looked_for(here: Host, tmp_path: Path) -> None:
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root=str(tmp_path)),
        proxy=Proxy(container="shop_proxy", network="shop"),
    )
    assert "set database.service" in access.none_runs(here, settings).next_step
