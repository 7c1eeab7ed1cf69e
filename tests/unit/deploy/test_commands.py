"""What commands are called when they fail."""

from __future__ import annotations

import pytest

from deploy import git, origin
from deploy.command import Command, command, script
from deploy.docker import compose, engine, proxy
from deploy.docker.compose import Place
from deploy.host import Result
from deploy.host.process import failed
from deploy.settings import Deploy, Migrate, Proxy, Settings

PLACE = Place("r1", "/r/source", "/r/env", "/r/compose.yml", "shop:r1")
SETTINGS = Settings(
    deploy=Deploy(project="shop", title="Shop", root="/srv/shop"),
    proxy=Proxy(container="shop_proxy", network="net"),
)
MIGRATES = SETTINGS.model_copy(
    update={"migrate": Migrate(command=("alembic", "upgrade", "head"), lock_timeout=2.5)}
)


@pytest.mark.parametrize(
    ("what", "name"),
    [
        (compose.up_proxy(SETTINGS, PLACE), "docker compose up"),
        (compose.migration(MIGRATES, PLACE), "docker compose run"),
        (command("docker", "compose", "version", "--short"), "docker compose version"),
        (engine.server_version(), "docker version"),
        (engine.image_id("shop:r1"), "docker image inspect"),
        (engine.inspect_container("shop"), "docker inspect"),
        (engine.load_image(), "docker load"),
        (proxy.reload(SETTINGS), "docker exec"),
        (command("docker", "--host=tcp://x", "--context", "far", "ps"), "docker ps"),
        (command("docker", "start", "compose"), "docker start"),
        (command("docker"), "docker"),
        (git.git("/srv/shop/repo", "archive", "--format=tar", "abc"), "git archive"),
        (command("git", "-c", "a=b", "-C", "/x", "status"), "git status"),
        (command("env", "LC_ALL=C", "tar", "-x", "-C", "/srv"), "tar"),
        (command("env", "-u", "A", "B=c", "sleep", "3"), "sleep"),
        (command("env"), "env"),
        (command("rm", "-r", "-f", "--", "/srv/shop"), "rm"),
        (command("mkdir", "-p", "-m", "0700", "--", "/srv"), "mkdir"),
        (script("exit 3", "data"), "bash script"),
        (origin.fetch("/r", origin.Address("/x"), keep=True), "bash script"),
    ],
)
def test_a_failed_command_is_called_by_what_it_does(what: Command, name: str) -> None:
    assert what.called() == name
    assert failed("vps", what, Result(3, "", "no", 0)).what == f"`{name}` failed with exit code 3"
