"""The agent's door to the real engine: what it lets through, and what the agent does there."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sandbox import images
from sandbox.bot_api import BotApi
from tests.integration.test_full_flow import message
from tests.support import agent
from tests.support.agent import eventually
from tests.support.container import docker
from tests.support.postgres import query

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
PORT = 2375
LIST = "/containers/json?all=1"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of the door that the compose file describes."""
    images.ensure(("caddy:2",))
    service = yaml.safe_load((ROOT / "docker-compose-vnext.yml").read_text())["services"]["engine"]
    del service["container_name"], service["networks"]
    file = tmp_path_factory.mktemp("door") / "compose.yml"
    file.write_text(yaml.safe_dump({"services": {"engine": service}}))
    project = f"deploy-test-{uuid.uuid4().hex[:8]}"
    compose = ("compose", "--project-name", project, "--file", str(file))
    try:
        docker(*compose, "up", "--detach")
        address = docker("inspect", "--format", ADDRESS, f"{project}-engine-1").strip()
        eventually(lambda: answers(address))
        yield address
    finally:
        docker(*compose, "down", "--volumes", check=False)


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    """Give the name of a container of ours that ended with an error."""
    name = f"server_agent_vnext_test_{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", "--name", name, "caddy:2", "sh", "-c", "exit 3")
    try:
        docker("wait", name)
        yield name
    finally:
        docker("rm", "--force", name)


def answers(address: str) -> bool:
    try:
        return ask(address, "GET", "/")[0] == 403
    except OSError:
        return False


def ask(address: str, method: str, path: str) -> tuple[int, bytes]:
    """Send a path just as it is."""
    link = http.client.HTTPConnection(address, PORT, timeout=15)
    try:
        link.request(method, path)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def test_it_lists_containers(door: str, broken: str) -> None:
    status, body = ask(door, "GET", LIST)
    assert status == 200
    assert f"/{broken}" in [name for item in json.loads(body) for name in item["Names"]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/info"),
        ("GET", "/containers/json"),
        ("GET", f"{LIST}&size=1"),
        ("GET", f"/v1.41{LIST}"),
        ("GET", f"/{LIST}"),
        ("GET", f"/exec/..{LIST}"),
        ("GET", f"/%63ontainers{LIST[11:]}"),
        ("HEAD", LIST),
        ("POST", LIST),
        ("GET", "/containers/NAME/json"),
        ("POST", "/containers/create"),
        ("POST", "/containers/NAME/exec"),
        ("POST", "/containers/NAME/stop"),
        ("DELETE", "/containers/NAME"),
        ("POST", "/containers/NAME/restart"),
        ("POST", "/containers/NAME/restart?t=10&signal=KILL"),
        ("POST", "/v1.41/containers/NAME/restart?t=10"),
        ("POST", "//containers/NAME/restart?t=10"),
        ("GET", "/containers/NAME/restart?t=10"),
        ("POST", "/containers/another/restart?t=10"),
        ("POST", "/containers/NAME%2F..%2Fanother/restart?t=10"),
        ("POST", "/containers/NAME/../another/restart?t=10"),
        ("POST", "/containers/NAME%0a/restart?t=10"),
        ("POST", "/containers/NAME%3ft=10/exec?/restart?t=10"),
        ("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D"),
        ("POST", "/build/prune?all=1"),
        ("POST", "/volumes/prune"),
    ],
)
def test_it_lets_nothing_else_through(door: str, broken: str, method: str, path: str) -> None:
    before = started(broken)
    assert ask(door, method, path.replace("NAME", broken))[0] == 403
    assert started(broken) == before


def started(name: str) -> str:
    return docker("inspect", "--format", "{{.State.StartedAt}}", name)


def test_the_agent_restarts_a_container_through_it(
    door: str, broken: str, migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    before = started(broken)
    more = {"ENGINE_URL": f"http://{door}:{PORT}", "LOOK_SECONDS": "1", "DISK_FREE_PERCENT": "0"}
    settings = agent.environment(migrated_database, telegram.url, **more)
    number = "select id from approvals where subject = %s"
    report = f"{broken} was restarted."
    with agent.running(settings, tmp_path / "agent.log") as running:
        eventually(lambda: query(migrated_database, number, broken) != [])
        assert started(broken) == before
        ((request,),) = query(migrated_database, number, broken)
        running.send(message(1, f"/approve {request}"))
        eventually(lambda: any(report in text for text in telegram.texts()))
    assert started(broken) > before
