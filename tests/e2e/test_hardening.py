"""Least privilege: who deploys, what containers may do, and what is reached from outside."""

from __future__ import annotations

import json
import selectors
import socket
from contextlib import ExitStack
from typing import Any, cast

import pytest

from sandbox import telegram
from sandbox.shell import must
from tests.e2e.conftest import HOME, Developer, change_settings

CONTAINERS = [f"server_agent_vnext_{name}" for name in ("app", "engine", "postgres", "proxy")]
MEMORY = {"app": 512, "engine": 128, "postgres": 1024, "proxy": 256}
RIGHTS = {"app": [], "engine": ["NET_BIND_SERVICE"], "postgres": []}
RIGHTS |= {"proxy": RIGHTS["engine"]}
NOT_THE_DEPLOY_USERS = f"find {HOME} ! -user deploy ! -path '{HOME}/logs/app/*'"


@pytest.fixture(scope="module")
def ann(developer: Developer) -> Developer:
    """A developer who deploys as a user that is in the docker group, and no more."""
    change = {"deploy": {"host": "vps-deploy"}, "tests": {"compose_file": ""}}
    change_settings(developer.clone / "invoke.yaml", change)
    developer.commit("VERSION", "as a deploy user\n")
    developer.on_host(f"install -d -o deploy -g deploy {HOME}")
    ended = developer.inv("deploy")
    assert ended.code == 0, ended.said
    return developer


def inspected(ann: Developer) -> dict[str, dict[str, Any]]:
    """What the engine says of each container of ours, by the last word of its name."""
    found = json.loads(ann.on_host(f"docker inspect {' '.join(CONTAINERS)}"))
    return {str(item["Name"]).rpartition("_")[2]: item for item in found}


def test_a_deploy_user_suffices(ann: Developer) -> None:
    assert ann.live()
    assert "sudo" not in ann.on_host("id -nG deploy; command -v sudo || true")
    assert ann.on_host(NOT_THE_DEPLOY_USERS) == ""
    ended = ann.inv("backup")
    assert ended.code == 0, ended.said
    # On the host itself the folder's secrets are this user's alone.
    assert ann.on_host(f"runuser -u nobody -- cat {HOME}/.env 2>&1 || true").endswith("denied")


def test_each_container_is_confined(ann: Developer) -> None:
    for name, item in inspected(ann).items():
        host = item["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        added = [right.removeprefix("CAP_") for right in host["CapAdd"] or ()]
        assert added == RIGHTS[name], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Memory"] == MEMORY[name] << 20, name
        assert host["PidsLimit"] > 0, name
        assert host["NanoCpus"] == 1_000_000_000, name
        assert host["RestartPolicy"]["Name"] == "always", name
        assert not host["Privileged"], name
        assert host["LogConfig"]["Config"] == {"max-size": "100m", "max-file": "5"}, name
    effective = "for n in $(docker ps -q --filter name=server_agent_vnext_); do docker exec $n"
    masks = set(ann.on_host(f"{effective} grep CapEff /proc/1/status; done").split("\n"))
    assert {int(line.split()[1], 16) & ~(1 << 10) for line in masks} == {0}


def test_nothing_but_the_proxys_port_is_published(ann: Developer) -> None:
    published = {
        name: sorted(item["HostConfig"]["PortBindings"] or ())
        for name, item in inspected(ann).items()
    }
    assert published == {"app": [], "engine": [], "postgres": [], "proxy": ["8000/tcp"]}


def open_ports(address: str) -> list[int]:
    """Try every port of an address, a thousand at once."""
    found = []
    for first in range(1, 65536, 1000):
        with selectors.DefaultSelector() as waiting, ExitStack() as opened:
            for port in range(first, min(first + 1000, 65536)):
                probe = opened.enter_context(socket.socket())
                probe.settimeout(0)
                probe.connect_ex((address, port))
                waiting.register(probe, selectors.EVENT_WRITE, port)
            while waiting.get_map():
                ready = waiting.select(10)
                assert ready, "neither open nor refused"
                for key, _ in ready:
                    probe = cast("socket.socket", key.fileobj)
                    if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        found.append(int(key.data))
                    waiting.unregister(probe)
    return sorted(found)


def test_from_outside_there_are_ssh_and_the_proxy_alone(ann: Developer) -> None:
    """Every port, from the network that the box stands in; the Bot API of the tests is away."""
    shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    argv = ("docker", "inspect", "--format", shown, ann.box.container)
    address = must(argv, deadline=20, next_step="docker ps").strip()
    ann.on_host(f"docker stop --time 1 {telegram.NAME}")
    try:
        assert open_ports(address) == [22, 8000]
    finally:
        ann.on_host(f"docker start {telegram.NAME}")


def test_each_release_lists_what_it_is_made_of(ann: Developer) -> None:
    first = next(item for item in ann.document("history") if item["kind"] == "deploy")
    live = ann.live()
    bill = json.loads(ann.on_host(f"cat {HOME}/releases/{live}/sbom.json"))
    names = {item["name"] for item in bill["components"]}
    assert {"fastapi", "uvicorn", "libc6", "dpkg"} <= names
    dpkg = "docker run --rm --entrypoint dpkg-query server-agent-vnext:latest --show | wc -l"
    assert first["sbom"]["debian"] == int(ann.on_host(dpkg))
    assert first["sbom"]["bytes"] < 100_000
    file = ann.clone / "Dockerfile"
    gone = "AS runtime\nRUN dpkg --purge --force-all tzdata"
    ann.commit("Dockerfile", file.read_text().replace("AS runtime", gone))
    ended = ann.inv("deploy")
    assert ended.code == 0, ended.said
    counts = {"added": 0, "removed": 1, "changed": 0}
    newest = ann.document("history", "--limit", "1")[0]["sbom"]
    assert (newest["against"], newest["counts"]) == (live, counts)
    assert newest["removed"][0].startswith("tzdata ")
    assert f"since {live}: 1 removed" in ann.inv("report").out
