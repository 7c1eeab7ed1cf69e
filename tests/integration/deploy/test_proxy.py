"""The front door while releases are switched, by a real Caddy."""

from __future__ import annotations

import contextlib
import http.client
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import settings as configuration
from deploy.docker import proxy
from deploy.settings import Webhook
from sandbox import images
from tests.support.agent import eventually
from tests.support.container import docker
from tests.support.http_server import Hasty, answering

ROOT = Path(__file__).resolve().parents[3]
PATH = "/hooks/deploy"
SETTINGS = configuration.load(ROOT, {}).model_copy(update={"webhook": Webhook(path=PATH)})
NAMES = tuple(proxy.upstream_name(name, SETTINGS.app.port) for name in ("app-1", "app-2"))
SWITCHES = 400
PAUSE = 0.02  # seconds between two, far less than a deployment leaves
ASKING = 6
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[str]:
    """Give the address of a front door that sends everybody to one of two releases."""
    images.ensure(("caddy:2",))
    live = tmp_path / "live"
    live.mkdir()
    (live / NAMES[0]).touch()
    (tmp_path / "Caddyfile").write_text(proxy.caddyfile(SETTINGS))
    network = f"deploy-test-{uuid.uuid4().hex[:8]}"
    run = ("run", "--detach", "--rm", "--network", network)
    releases = ("--name", f"{network}-app", "--network-alias", "app-1", "--network-alias", "app-2")
    respond = ("caddy", "respond", "--listen", f":{SETTINGS.app.port}", "here")
    mount = ("--name", f"{network}-door", "--volume", f"{tmp_path}:/etc/caddy:ro")
    docker("network", "create", network)
    try:
        docker(*run, *releases, "caddy:2", *respond)
        docker(*run, *mount, "caddy:2")
        address = docker("inspect", "--format", ADDRESS, f"{network}-door").strip()
        eventually(lambda: answer(address) == "200")
        yield address
    finally:
        docker("rm", "--force", f"{network}-door", f"{network}-app", check=False)
        docker("network", "rm", network)


def answer(address: str) -> str:
    connection = http.client.HTTPConnection(address, SETTINGS.proxy.port, timeout=10)
    try:
        connection.request("GET", "/")
        return str(connection.getresponse().status)
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def test_nobody_is_turned_away_while_releases_are_switched(door: str, tmp_path: Path) -> None:
    answers: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answers.append(answer(door))

    threads = [threading.Thread(target=ask) for _ in range(ASKING)]
    for thread in threads:
        thread.start()
    try:
        for number in range(SWITCHES):
            old, new = NAMES[number % 2], NAMES[(number + 1) % 2]
            (tmp_path / "live" / old).rename(tmp_path / "live" / new)
            ended.wait(PAUSE)
    finally:
        ended.set()
        for thread in threads:
            thread.join(20)
    assert len(answers) > 100
    assert set(answers) == {"200"}


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[str]:
    """Give the path of a webhook that somebody hears; the door has to find him there."""
    (tmp_path / "listen").mkdir()
    with answering(tmp_path / "listen/socket"):
        yield PATH


def told(address: str, path: str, size: int) -> tuple[int, str]:
    """Tell so many bytes; return the status, and what was answered."""
    connection = http.client.HTTPConnection(address, SETTINGS.proxy.port, timeout=30)
    try:
        with contextlib.suppress(ConnectionError):  # it may close before it has read all
            connection.request("POST", path, b"x" * size)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_webhook_and_the_application_have_a_limit_each(hook: str, door: str) -> None:
    largest = SETTINGS.proxy.max_body_mb * 1_000_000
    assert told(door, hook, largest + 1) == (200, str(largest + 1))
    assert told(door, hook, proxy.WEBHOOK_BODY) == (200, str(proxy.WEBHOOK_BODY))
    assert told(door, hook, proxy.WEBHOOK_BODY + 1)[0] == 413
    assert told(door, "/", largest)[0] == 200
    assert told(door, "/", largest + 1)[0] == 413
    assert told(door, f"{hook}/more", largest + 1)[0] == 413


def test_what_is_too_large_is_refused_whoever_hears(door: str, tmp_path: Path) -> None:
    (tmp_path / "listen").mkdir()
    with answering(tmp_path / "listen/socket", Hasty):
        assert told(door, PATH, 1)[0] == 403
        assert {told(door, PATH, 2 * proxy.WEBHOOK_BODY)[0] for _ in range(20)} == {413}
