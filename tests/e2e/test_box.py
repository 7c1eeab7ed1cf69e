"""A real box: made, reached, rebooted, broken and removed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.outcome import Invalid
from sandbox import contents
from sandbox.box import Box, down, up
from sandbox.machine.facts import BASE_IMAGES
from sandbox.shell import Answer, ask, until
from sandbox.vps import address, container

MARK = "/var/lib/docker/volumes/mark"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    directory = tmp_path_factory.mktemp("a folder") / ".sandbox"
    try:
        yield up(directory)
    finally:
        down(directory)


def run(box: Box, *argv: str) -> Answer:
    return ask(box.ssh(*argv), deadline=60)


def engine_answers(box: Box) -> bool:
    return bool(run(box, "docker", "info", "--format", "{{.Driver}}").out.strip())


def with_config(box: Box, folder: Path, change: Callable[[str], str]) -> Answer:
    config = folder / "ssh_config"
    config.write_text(change(box.ssh_config.read_text()))
    return ask(("ssh", "-F", str(config), "vps", "true"), deadline=30)


def test_ssh_works_for_both_users(box: Box) -> None:
    assert run(box, "id", "-un").out.strip() == "root"
    deploy = ask(("ssh", "-F", str(box.ssh_config), "vps-deploy", "id -un; docker ps"), deadline=30)
    assert deploy.ok
    assert deploy.out.startswith("deploy\n")


def test_the_box_has_what_a_server_has_and_nothing_for_python(box: Box) -> None:
    for argv in (
        ("docker", "compose", "version"),
        ("docker", "buildx", "version"),
        ("git", "--version"),
        ("curl", "--version"),
        ("ss", "-V"),
    ):
        assert run(box, *argv).ok, argv
    # A plain one: what the pipeline runs there must do without any package.
    assert run(box, "python3", "-c", "'import sys; assert sys.version_info >= (3, 11)'").ok
    for name in ("yaml", "pydantic", "fabric", "requests"):
        assert not run(box, "python3", "-c", f"'import {name}'").ok
    assert not run(box, "test", "-e", "/opt/server-agent-vnext").ok


def test_its_own_engine_runs_containers_from_the_base_images(box: Box) -> None:
    listing = run(box, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").out
    assert set(BASE_IMAGES) <= set(listing.split())
    version = run(box, "docker", "run", "--rm", BASE_IMAGES[0], "python", "--version")
    assert version.out.startswith("Python 3.11")


def test_it_listens_on_its_own_loopback_address_alone(box: Box) -> None:
    published = ask(
        ("docker", "inspect", "--format", "{{json .NetworkSettings.Ports}}", box.container),
        deadline=20,
    )
    ports = json.loads(published.out)
    assert {entry["HostIp"] for entries in ports.values() for entry in entries} == {box.address}
    assert box.address.startswith("127.0.0.")


def test_keys_are_readable_by_their_owner_alone(box: Box) -> None:
    assert (box.directory / "key").stat().st_mode & 0o777 == 0o600
    assert (box.directory / "host_key").stat().st_mode & 0o777 == 0o600


def test_another_key_is_refused(box: Box, tmp_path: Path) -> None:
    other = tmp_path / "other"
    ask(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)), deadline=20)
    answer = with_config(
        box, tmp_path, lambda text: text.replace(str(box.directory / "key"), str(other))
    )
    assert answer.code == 255
    assert "Permission denied (publickey)" in answer.err


def test_another_host_key_is_refused(box: Box, tmp_path: Path) -> None:
    pins = tmp_path / "known_hosts"
    key = (box.directory / "key.pub").read_text().split()[1]
    pins.write_text(f"[{box.address}]:{box.port} ssh-ed25519 {key}\n")
    answer = with_config(
        box,
        tmp_path,
        lambda text: text.replace(str(box.directory / "known_hosts"), str(pins)),
    )
    assert answer.code == 255
    assert "Host key verification failed" in answer.err


def test_a_running_box_is_returned_as_it_is(box: Box) -> None:
    before = run(box, "cat", "/proc/1/stat").out.split()[21]
    assert up(box.directory) == box
    assert run(box, "cat", "/proc/1/stat").out.split()[21] == before


def test_the_front_door_is_reached_from_here_and_a_reboot_keeps_everything(box: Box) -> None:
    pin = (box.directory / "known_hosts").read_text()
    run(box, "touch", MARK, "/root/mark")
    serve = ("python", "-m", "http.server", "8000", "--bind", "0.0.0.0", "--directory", "/etc")
    started = run(
        box,
        *("docker", "run", "--detach", "--init", "--name", "door", "--restart", "unless-stopped"),
        *("--publish", "8000:8000", BASE_IMAGES[0], *serve),
    )
    assert started.ok, started.err
    assert until(lambda: door_answers(box), deadline=30)

    assert ask(("docker", "restart", box.container), deadline=60).ok
    assert up(box.directory) == box
    assert (box.directory / "known_hosts").read_text() == pin
    assert run(box, "ls", MARK, "/root/mark").ok
    assert until(lambda: door_answers(box), deadline=30)


def door_answers(box: Box) -> bool:
    try:
        with urllib.request.urlopen(f"{box.url}/hostname", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_stopped_box_is_started_again(box: Box) -> None:
    assert ask(("docker", "kill", "--signal=KILL", box.container), deadline=60).ok
    assert up(box.directory) == box
    assert engine_answers(box)


def test_an_engine_that_dies_is_started_again(box: Box) -> None:
    first = run(box, "cat", "/run/docker.pid").out
    run(box, "bash", "-c", "'kill -9 $(cat /run/docker.pid)'")
    assert until(
        lambda: engine_answers(box) and run(box, "cat", "/run/docker.pid").out != first,
        deadline=60,
    )


def test_a_commit_gets_in_and_everything_gets_out(box: Box, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    first = commit(checkout, "one")
    contents.seed(box, checkout)
    assert head_in(box) == first
    second = commit(checkout, "two")
    contents.seed(box, checkout)
    assert head_in(box) == second != first
    origin = run(box, "git", "-C", contents.CLONE, "remote", "get-url", "origin").out.strip()
    assert origin == f"file://{contents.REPOSITORY}"

    run(box, "docker", "network", "create", "extra-network")
    run(box, "docker", "tag", BASE_IMAGES[0], "extra:1")
    run(box, "docker", "run", "--detach", "--volume=extra-volume:/x", "extra:1", "sleep", "600")
    contents.reset(box)
    assert run(box, "docker", "ps", "--all", "--quiet").out == ""
    assert run(box, "docker", "volume", "ls", "--quiet").out == ""
    assert run(box, "docker", "network", "ls", "--filter=type=custom", "--quiet").out == ""
    listing = run(box, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").out
    assert set(listing.split()) == set(BASE_IMAGES)
    assert not run(box, "ls", "/opt/server-agent-vnext").ok
    assert not run(box, "ls", "/srv/git").ok


def test_a_checkout_without_a_commit_is_refused_in_a_sentence(box: Box, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    with pytest.raises(Invalid) as caught:
        contents.seed(box, tmp_path)
    assert caught.value.where == str(tmp_path)
    contents.reset(box)


def git(folder: Path, *argv: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    answer = ask(("git", "-C", str(folder), *who, *argv), deadline=30, env=kept)
    assert answer.ok, answer.err
    return answer.out.strip()


def commit(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "file").write_text(text)
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "--message", text)
    return git(folder, "rev-parse", "HEAD")


def head_in(box: Box) -> str:
    return run(box, "git", "-C", contents.CLONE, "rev-parse", "main").out.strip()


def test_what_is_left_of_an_earlier_box_is_replaced_and_down_leaves_nothing(
    tmp_path: Path,
) -> None:
    directory = tmp_path / ".sandbox"
    name = container.name_of(directory)
    # Somebody removed the folder; the container that nobody can enter any more is in the way.
    assert ask(("docker", "create", "--name", name, BASE_IMAGES[0]), deadline=30).ok
    try:
        assert run(up(directory), "true").ok
    finally:
        down(directory)
    assert not directory.exists()
    assert container.state_of(name) == container.State()
    volumes = ask(("docker", "volume", "ls", "--quiet", f"--filter=name={name}"), deadline=20)
    assert volumes.out == ""
    down(directory)


def test_down_does_not_touch_a_folder_that_is_not_a_boxs(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    down(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_without_an_engine_the_state_is_kept_and_the_reason_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "box.json").write_text("{}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(Invalid) as caught:
        down(tmp_path)
    assert "daemon" in caught.value.why
    assert (tmp_path / "box.json").exists()


def test_a_port_that_is_taken_everywhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        port = everywhere.getsockname()[1]
        monkeypatch.setattr(address, "PORTS", {port: 22})
        with pytest.raises(Invalid) as caught:
            up(tmp_path / ".sandbox")
    assert str(port) in caught.value.why
    assert not (tmp_path / ".sandbox").exists()


def test_a_fresh_python_can_read_every_line_of_the_set_up() -> None:
    done = subprocess.run(
        ("python3", "-I", "-S", "-c", "import sys; sys.path.insert(0, '.'); import sandbox.box"),
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
