"""The doctor on this machine, and over SSH: each finding provoked for real."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import doctor, releases, traffic
from deploy.docker import proxy
from deploy.host import Host
from deploy.lock import left, look
from deploy.schedule import install as scheduling
from deploy.session import opened
from deploy.triggers import install, service
from sandbox import bot_api, images
from sandbox.bot_api import MASTER, TOKEN, BotApi
from tests.support.agent import eventually
from tests.support.container import docker
from tests.support.http_server import answering
from tests.support.ports import free_port
from tests.support.sshd import Sshd, running

ROOT = Path(__file__).resolve().parents[3]
AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
Found = dict[str, dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a checkout of its own, for a host that does not name itself."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("docker-compose.yml", "Dockerfile"):
        (folder / name).touch()
    git(folder, "init", "--quiet", "-b", "main")
    git(folder, *AUTHOR, "commit", "--quiet", "--allow-empty", "-m", "one")
    configure(folder, tmp_path / "root")
    for name in ("TELEGRAM_API_TOKEN", "MASTER_CHAT_ID", "TELEGRAM_API_BASE", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(("git", "-C", str(folder), *words), check=True, timeout=60)


def configure(folder: Path, root: Path, **more: Mapping[str, Any]) -> None:
    data: dict[str, dict[str, Any]] = {
        "deploy": {"project": "none", "title": "None", "root": str(root), "minimum_free_mb": 1},
        "proxy": {"container": "no-such-door", "network": "no-such-network", "port": free_port()},
    }
    for section, values in more.items():
        data[section] = {**data.get(section, {}), **values}
    (folder / "invoke.yaml").write_text(yaml.safe_dump(data))


def examined(folder: Path, host: str = "local", tool: str = "inv") -> Found:
    """Return what is found, by name; of several of a name the worst."""
    order = ("ok", "warning", "stops")
    found = doctor.examine(folder, host, tool)["findings"]
    return {
        item["name"]: item for item in sorted(found, key=lambda item: order.index(item["state"]))
    }


def states(found: Found) -> dict[str, str]:
    return {name: item["state"] for name, item in found.items() if item["state"] != "ok"}


def test_of_a_fresh_machine_nothing_stops_a_deployment(folder: Path) -> None:
    found = examined(folder)
    assert states(found) == {"remote": "warning"}
    assert {"tools", "python", "engine", "compose", "disk", "ports", "lock", "clock"} <= set(found)


def test_all_that_is_wrong_is_found_at_once(
    folder: Path, tmp_path: Path, here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    cron = tmp_path / "bin/crontab"
    cron.parent.mkdir()
    cron.write_text("#!/bin/sh\necho 'no crontab for ann' >&2; exit 1\n")
    cron.chmod(0o755)
    monkeypatch.setenv("PATH", f"{cron.parent}:{os.environ['PATH']}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        configure(
            folder,
            root,
            deploy={"minimum_free_mb": 999_999_999, "compose_file": "nowhere.yml"},
            database={"service": "db", "schedule": "03:30"},
            proxy={"port": port},
        )
        (folder / ".env").write_text("X=1\n")
        (folder / ".env").chmod(0o644)
        root.mkdir(mode=0o777)
        root.chmod(0o777)
        (root / ".env").write_text("garbage\n")
        (root / "lock").touch()
        (root / "lock.owner").write_text("{}")
        git(folder, "remote", "add", "origin", str(tmp_path / "nowhere"))
        found = examined(folder)
    assert states(found) == {
        ".env": "warning",
        "disk": "stops",
        "environment": "stops",
        "files": "stops",
        "folders": "warning",
        "lock": "warning",
        "ports": "stops",
        "remote": "warning",
        "timer": "warning",
    }
    assert found["environment"]["what"].endswith(".env:1")
    assert "nowhere.yml" in found["files"]["what"]
    assert str(port) in found["ports"]["cure"]
    assert "killed" in found["lock"]["what"]
    assert found["timer"]["cure"] == "inv backup.schedule --host local"
    assert left(here, f"{root}/lock")


@pytest.mark.skipif(bool(shutil.which("crontab")), reason="this machine has a cron of its own")
def test_where_nothing_can_start_a_backup_the_cure_is_what_brings_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "RUNNING", str(tmp_path / "none"))
    configure(folder, tmp_path / "root", database={"service": "db", "schedule": "03:30"})
    found = examined(folder)["timer"]
    assert found["state"] == "warning"
    assert "it has no cron" in found["what"]
    assert found["cure"].startswith("inv setup --host local --install, as root there")


def test_settings_that_are_wrong_hide_nothing_else(folder: Path) -> None:
    (folder / "invoke.yaml").write_text("deploy: {proyect: x}\n")
    (folder / ".env").write_text("X=1\n")
    (folder / ".env").chmod(0o640)
    found = doctor.examine(folder, "", "inv")
    assert doctor.code(found) == 7
    kept = {item["name"]: item for item in found["findings"]}
    assert "did you mean project?" in kept["settings"]["what"]
    assert kept[".env"]["cure"] == f"chmod 600 {folder}/.env"
    assert kept["git"]["state"] == "ok"


def test_no_checkout_stops_who_deploys_from_it(folder: Path) -> None:
    shutil.rmtree(folder / ".git")
    assert examined(folder)["git"]["state"] == "stops"
    assert examined(folder, tool="fab")["git"]["state"] == "warning"


def test_a_repository_stops_who_fetches_from_it(folder: Path, tmp_path: Path) -> None:
    assert examined(folder, tool="fab")["fetch"]["state"] == "stops"
    assert examined(folder, tool="inv")["fetch"]["state"] == "ok"
    configure(folder, tmp_path / "root", git={"url": f"file://{folder}"})
    assert examined(folder, tool="fab")["fetch"]["state"] == "ok"
    configure(folder, tmp_path / "root", git={"url": f"file://{folder}", "branch": "other"})
    assert "no such branch" in examined(folder, tool="fab")["fetch"]["what"]
    configure(folder, tmp_path / "root", git={"url": f"file://{tmp_path}/nowhere"})
    assert examined(folder, tool="fab")["fetch"]["state"] == "stops"
    assert examined(folder, tool="inv")["fetch"]["state"] == "warning"


def test_a_push_that_would_deploy_otherwise_is_a_warning(folder: Path, tmp_path: Path) -> None:
    assert "no repository to push to yet" in examined(folder)["hook"]["what"]
    with opened(folder, "local", "inv") as session:
        install.push(session)
    assert examined(folder)["hook"]["state"] == "ok"
    assert "listener" not in examined(folder)
    hook = tmp_path / "root/push.git/hooks/post-receive"
    hook.write_text("#!/bin/sh\n")
    assert "not set up as it should be" in examined(folder)["hook"]["what"]
    hook.chmod(0o644)
    assert "does not deploy" in examined(folder)["hook"]["what"]
    hook.chmod(0o755)
    configure(folder, tmp_path / "root", health={"timeout": 7})
    found = examined(folder)["hook"]
    assert (found["state"], found["cure"]) == ("warning", "inv setup --host local")
    assert "by other settings, or another library" in found["what"]


def test_webhooks_that_nobody_hears_are_a_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RUNNING", str(tmp_path / "none"))
    path, root = "/hooks/deploy", tmp_path / "root"
    configure(folder, root, webhook={"path": path})
    found = examined(folder)["listener"]
    assert (found["state"], found["what"]) == (
        "warning",
        "still to be done: keep a listener running",
    )
    at = root / "proxy/listen/socket"
    assert f"inv listen --address {at}" in found["cure"]
    with opened(folder, "local", "inv") as session:
        install.make_folders(session)
        known = proxy.caddyfile(session.settings)
    with answering(at):
        assert "from the first deployment on" in examined(folder)["listener"]["what"]
        (root / "proxy/Caddyfile").write_text(known.replace(path, "/other"))
        found = examined(folder)["listener"]
        assert (found["state"], found["cure"]) == ("warning", "inv deploy --host local tells it")
        (root / "proxy/Caddyfile").write_text(known)
        assert examined(folder)["listener"]["state"] == "ok"


@pytest.fixture
def door(folder: Path, tmp_path: Path) -> Iterator[str]:
    """Give the name of a front door that sends the traffic to a release."""
    images.ensure(("caddy:2",))
    name, root = f"deploy-test-{uuid.uuid4().hex[:8]}", tmp_path / "root"
    release = releases.Release("r1", "0" * 40, "main", "none:r1", "2026-03-01", state="good")
    configure(folder, root, proxy={"container": name, "domain": "shop.example.org"})
    with opened(folder, "local", "inv") as session:
        install.make_folders(session)
        for path in (root / "releases/r1", root / "proxy/live"):
            path.mkdir(parents=True, exist_ok=True)
        releases.save(session.target, session.layout, release)
        (root / "proxy/live" / traffic.upstream_of(session.settings, release)).touch()
        (root / "proxy/Caddyfile").write_text(proxy.caddyfile(session.settings))
        mount = ("--volume", f"{root}/proxy:/etc/caddy:ro")
        docker("run", "--detach", "--name", name, *mount, "caddy:2")
        try:
            asked = proxy.ask_upstream(session.settings)
            eventually(lambda: session.target.run(asked).ok)
            yield name
        finally:
            docker("rm", "--force", name)


def test_a_front_door_that_does_not_run_is_a_warning(folder: Path, door: str) -> None:
    assert examined(folder)["front door"]["what"] == "it sends the traffic to r1"
    docker("stop", "--time", "1", door)
    found = examined(folder)
    assert found["front door"]["state"] == "warning"
    assert "nobody reaches r1, which is live" in found["front door"]["what"]
    assert found["front door"]["cure"].startswith(f"docker start {door} there, or inv deploy")
    assert "certificate" not in found


def test_an_environment_that_is_garbage_may_be_open_as_well(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "root/.env"
    path.parent.mkdir()
    path.write_text("garbage\n")
    path.chmod(0o644)
    told = [
        (item["state"], item["cure"])
        for item in doctor.examine(folder, "local", "inv")["findings"]
        if item["name"] == "environment"
    ]
    assert ("warning", f"chmod 600 {path} there") in told
    assert "stops" in dict(told)


def test_a_bot_that_nobody_knows_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bot_api.served(BotApi()) as api:
        monkeypatch.setenv("TELEGRAM_API_BASE", api.url)
        monkeypatch.setenv("MASTER_CHAT_ID", MASTER)
        monkeypatch.setenv("TELEGRAM_API_TOKEN", TOKEN)
        assert examined(folder)["bot"]["state"] == "ok"
        wrong = f"{TOKEN[:-4]}zzzz"
        monkeypatch.setenv("TELEGRAM_API_TOKEN", wrong)
        found = examined(folder)["bot"]
    assert found["state"] == "warning"
    assert wrong not in json.dumps(found)


def test_a_held_lock_stops_and_is_not_called_left(folder: Path, tmp_path: Path, here: Host) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = f"{root}/lock"
    (root / "lock.owner").write_text("{}")
    hold = ("flock", path, "sh", "-c", "echo held; read -r line")
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout
        assert held.stdout.readline() == "held\n"
        assert left(here, path) is None
        assert look(here, path)
        assert examined(folder)["lock"]["state"] == "stops"
        held.communicate("\n", timeout=20)
    assert examined(folder)["lock"]["state"] == "warning"


def test_a_host_that_is_not_there_leaves_what_is_here(folder: Path) -> None:
    found = examined(folder, f"root@127.0.0.1:{free_port()}")
    assert found["reachable"]["state"] == "stops"
    assert "clock" not in found
    assert found["engine"]["state"] == "ok"
    assert found["host key"]["state"] == "stops"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as found:
        yield found


def test_over_ssh_key_and_clock_are_looked_at(folder: Path, server: Sshd) -> None:
    (folder / ".sandbox").mkdir()
    config = folder / ".sandbox/ssh_config"
    config.write_text(server.config.read_text())
    found = examined(folder, "target")
    assert (
        found["reachable"]["state"] == found["host key"]["state"] == found["clock"]["state"] == "ok"
    )
    assert found["engine"]["state"] == "stops"  # none runs in there
    assert found["engine"]["where"] == "target"

    wrong = '#!/bin/sh\nexec /usr/bin/date -d "+2 hours" "$@"\n'
    server.inside(
        "sh", "-c", f"printf '%s' '{wrong}' >/usr/local/bin/date; chmod +x /usr/local/bin/date"
    )
    try:
        clock = examined(folder, "target")["clock"]
    finally:
        server.inside("rm", "/usr/local/bin/date")
    assert clock["state"] == "warning"
    assert "2:00:00 h ahead of" in clock["what"]

    key = Path(server.folder / "key")
    key.chmod(0o644)
    try:
        assert examined(folder, "target")["ssh"]["state"] == "warning"
    finally:
        key.chmod(0o600)

    config.write_text(server.write(UserKnownHostsFile="/dev/null").read_text())
    found = examined(folder, "target")
    assert found["host key"]["state"] == found["reachable"]["state"] == "stops"
    assert found["files"]["state"] == "ok"


CERTIFY = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /root/k.pem \
  -out /root/c.pem -subj /CN=shop.example.org -not_before "$1" -not_after "$2" 2>/dev/null
openssl s_server -accept 443 -key /root/k.pem -cert /root/c.pem -www >/dev/null 2>&1 &
echo $! >/root/served
until curl --silent --insecure --output /dev/null https://127.0.0.1/; do sleep 0.05; done
"""


@pytest.mark.parametrize(("days", "state"), [(60, "ok"), (5, "warning"), (-1, "warning")])
def test_the_certificate_that_is_shown_is_looked_at(
    folder: Path, server: Sshd, days: int, state: str
) -> None:
    (folder / ".sandbox").mkdir()
    (folder / ".sandbox/ssh_config").write_text(server.config.read_text())
    configure(folder, Path("/srv/shop"), proxy={"domain": "shop.example.org"})
    assert "none for shop.example.org yet" in examined(folder, "target")["certificate"]["what"]
    end = datetime.now(UTC) + timedelta(days=days)
    dates = [f"{at:%Y%m%d%H%M%SZ}" for at in (end - timedelta(days=90), end)]
    server.inside("bash", "-c", CERTIFY, "certify", *dates)
    try:
        found = examined(folder, "target")
    finally:
        server.inside("bash", "-c", "kill $(cat /root/served)")
    assert found["certificate"]["state"] == state, found["certificate"]
    assert f"ends {end:%Y-%m-%d %H:%M} UTC" in found["certificate"]["what"]
    assert found["ports"]["state"] == "stops"  # 443 is somebody else's


@pytest.mark.parametrize("tool", [("invoke",), ("fabric", "-H", "local")])
def test_both_command_lines_end_with_the_code_of_what_was_found(
    folder: Path, tmp_path: Path, tool: tuple[str, ...]
) -> None:
    shutil.copy(ROOT / "tasks.py", folder)
    shutil.copytree(ROOT / "fabfile", folder / "fabfile")
    configure(folder, tmp_path / "root", git={"url": f"file://{folder}"})
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        argv = (sys.executable, "-m", *tool, "doctor", *words)
        return subprocess.run(
            argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    done = typed("--json")
    assert (done.returncode, json.loads(done.stdout)["ready"]) == (0, True), done.stderr
    configure(folder, tmp_path / "root", deploy={"minimum_free_mb": 999_999_999})
    done = typed("--json")
    assert (done.returncode, json.loads(done.stdout)["ready"]) == (7, False)
    done = typed()
    assert done.returncode == 7
    assert "✗ disk" in done.stdout
    assert "would stop a deployment" in done.stdout
