"""Planted secrets, searched for everywhere after a run with every feature on; and a new one."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import contents, telegram
from sandbox.bot_api import MASTER
from sandbox.box import Box
from sandbox.load import Load
from sandbox.shell import until
from sandbox.vps import container
from tests.e2e.conftest import (
    HOME,
    LONG,
    Developer,
    Ended,
    a_box,
    change_settings,
    going,
    in_box,
    newest,
    press,
    with_approval,
)

CONTAINERS = "docker ps --all --format '{{.Names}} {{.Image}} {{.State}}' | sort"
TIMED = "server-agent-vnext-backup"
APP, DATABASE = "server_agent_vnext_app", "server_agent_vnext_postgres"
# Others each time: in this file they would stand in git, and be found there.
MARK = secrets.token_hex(8)
BOT = f"987654321:Planted-Token-{MARK}abcdef"
DOOR = f"Planted-Database-{MARK}"
HOOK = f"Planted-Webhook-{MARK}"
MODEL = f"sk-Planted-Model-{MARK}"
LISTENER = f"Planted-Listener-{MARK}"
OTHER = f"Planted-Other-{MARK}"
PLANTED = {
    "token": BOT,
    "database": DOOR,
    "webhook": HOOK,
    "listener": LISTENER,
    "model": MODEL,
    "other": OTHER,
}
FIND = "grep -aoF " + " ".join(f"-e {value}" for value in PLANTED.values()) + " || true"
ENV = f"""
POSTGRES_DB=server_agent
POSTGRES_USER=server_agent
POSTGRES_PASSWORD={DOOR}
DATABASE_URL=postgresql://server_agent:{DOOR}@postgres:5432/server_agent
TELEGRAM_WEBHOOK_SECRET={HOOK}
DEPLOY_URL=http://server_agent_vnext_proxy:8000/hooks/deploy
WEBHOOK_SECRET={LISTENER}
OTHER_SECRET={OTHER}
TELEGRAM_API_TOKEN={BOT}
MASTER_CHAT_ID={MASTER}
"""
# It says all it was told, and ends: the worst that a release can do with its secrets.
TALKER = "import os, sys\nprint(dict(os.environ), flush=True)\nsys.exit(1)\n"
WATCH = """
while [ ! -e "$0" ]; do
  for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <"$file"; echo; done; sleep 0.02
done 2>/dev/null | awk '!seen[$0]++'
"""
# The Bot API's own process is told its token; it belongs to the test.
FAKE = "sandbox.bot_api"
KILL = f'kill -KILL "$(sed -n \'s/.*"pid": *\\([0-9]*\\).*/\\1/p\' {HOME}/working)"'
PLACES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"
TRY = (
    "docker run --rm --network server_agent_vnext_internal -e PGPASSWORD={} --entrypoint psql"
    " postgres:15-bookworm -X -w -qtA -h postgres -U {} -d server_agent -c '{}'"
)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box of this file's own, that systemd looks after."""
    with a_box(tmp_path_factory.mktemp("systemd"), container.SYSTEMD) as found:
        yield found


@pytest.fixture(scope="module")
def bot_api(empty_box: Box) -> str:
    """A Bot API that takes the planted token."""
    return telegram.start(empty_box, BOT)


@pytest.fixture(scope="module")
def ann(developer: Developer) -> Developer:
    """A developer whose secrets are planted: on the host, in .env here, in the environment."""
    change: dict[str, dict[str, Any]] = {
        "deploy": {"pass_env": ["TELEGRAM_API_TOKEN", "MASTER_CHAT_ID", "MODEL_API_KEY"]},
        "webhook": {"path": "/hooks/deploy"},
        "git": {"url": f"file://{contents.REPOSITORY}"},
        # Where the developer of these tests has a password of his own.
        "secrets": {"examples": ["tests/", "sandbox/", "benchmarks/", "docs/", ".env.example"]},
    }
    change_settings(developer.clone / "invoke.yaml", change)
    developer.commit("VERSION", "with planted secrets\n")
    file = developer.clone / ".env"
    file.write_text(f"MODEL_API_KEY={MODEL}\n")
    file.chmod(0o600)
    base = telegram.inside(developer.box)
    env = f"{ENV}TELEGRAM_API_BASE={base}\n"
    in_box(developer.box, f"umask 077; mkdir -p {HOME}; cat >{HOME}/.env <<'END'{env}END")
    return replace(developer, environment={**developer.environment, "TELEGRAM_API_TOKEN": BOT})


@contextmanager
def watched(ann: Developer, folder: Path) -> Iterator[list[str]]:
    """Note the arguments of every process meanwhile, here and in the box."""
    seen: list[str] = []
    here = folder / "stop"
    in_box(ann.box, "rm -f /tmp/stop")
    both = (
        ("docker", "exec", ann.box.container, "bash", "-c", WATCH, "/tmp/stop"),
        ("bash", "-c", WATCH, str(here)),
    )
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE) for argv in both]
    try:
        yield seen
    finally:
        here.touch()
        in_box(ann.box, "touch /tmp/stop")
        for process in running:
            text = process.communicate(timeout=60)[0].decode(errors="replace")
            seen.extend(line for line in text.splitlines() if FAKE not in line)


def by_telegram(ann: Developer) -> str:
    """Have the Master ask for a deployment, and approve it; return the commit it is to be of."""
    sha = ann.commit("VERSION", "what the Master wants\n")
    contents.seed(ann.box, ann.clone)
    url = ann.environment["TELEGRAM_API_BASE"]
    telegram.control(url, "say", text="/deploy")
    assert until(lambda: telegram.question(url) is not None, deadline=LONG)
    asked = press(url, "approve")
    assert "The newest commit of main." in asked["text"]
    return sha


@pytest.fixture(scope="module")
def told(ann: Developer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What was said where in a run with every feature on, a bad release among it."""
    folder = tmp_path_factory.mktemp("watch")
    contents.seed(ann.box, ann.clone)
    with watched(ann, folder) as seen:
        ready = ann.inv("setup")
        assert ready.code == 0, ready.said
        good = with_approval(ann, folder / "said")
        assert good.code == 0, good.said
        ann.on_host(f"systemctl start {TIMED}.service")
        ann.commit("server_agent/__main__.py", TALKER)
        bad = ann.inv("deploy")
        ann.back()
        assert bad.code == 3, bad.said
        wanted = ("webhook", by_telegram(ann), 0)
        assert until(lambda: newest(ann) == wanted, deadline=LONG, every=0.5)
        looks = [
            ann.inv(*words)
            for words in (
                ("backup", "--download"),
                ("report",),
                ("history", "--json"),
                ("logs", "--lines", "1000"),
                ("logs", "deploy", "--lines", "10000"),
                ("status", "--json"),
                ("secrets.check",),
                ("setup",),
                ("doctor", "--json"),
            )
        ]
    assert [item.code for item in looks] == [0] * len(looks), "".join(item.said for item in looks)
    assert any("docker compose" in line for line in seen)
    return {
        "terminal": "".join(item.said for item in (ready, good, bad, *looks)),
        "processes": "\n".join(seen),
        "messages": json.dumps(telegram.control(ann.environment["TELEGRAM_API_BASE"], "messages")),
        "image history": ann.on_host("docker history --no-trunc server-agent-vnext:latest"),
        "image layers": in_box(ann.box, f"docker save server-agent-vnext:latest | {{ {FIND}; }}"),
        "image": ann.on_host("docker image inspect server-agent-vnext:latest"),
        "service logs": ann.on_host(f"docker logs {APP} 2>&1; docker logs {DATABASE} 2>&1"),
        "journal": ann.on_host("journalctl --no-pager --all"),
        "git": ann.git("log", "--all", "--patch"),
    }


def test_systemd_takes_a_backup_each_day(ann: Developer, told: dict[str, str]) -> None:
    taken = [item for item in ann.document("history") if item["trigger"] == "timer"]
    assert [(item["kind"], item["code"]) for item in taken] == [("backup", 0)]
    due = ann.on_host(f"systemctl show --property=ActiveState,TimersCalendar {TIMED}.timer")
    assert "ActiveState=active" in due
    assert "OnCalendar=*-*-* 03:30:00 UTC" in due


def files_with(box: Box, values: dict[str, str]) -> dict[str, str]:
    """The files in the box that hold a secret, and their modes; but for the Bot API's own."""
    wanted = " ".join(f"-e {value}" for value in values.values())
    text = in_box(
        box,
        f"mine=$(docker inspect --format '{{{{.Id}}}}' {telegram.NAME})\n"
        f'{{ grep -rlaF --exclude-dir="$mine" {wanted} {PLACES} || true; }} 2>/dev/null'
        " | while IFS= read -r name; do stat -c '%a %n' -- \"$name\"; done",
    )
    return {line.split(" ", 1)[1]: line.split(" ", 1)[0] for line in text.splitlines()}


def but_the_engines(found: dict[str, str]) -> dict[str, str]:
    """The same files without what the engine notes of the containers that it tells them to."""
    engines = ("/var/lib/docker/", "/run/docker/", "/run/containerd/", "/var/lib/containerd/")
    return {name: mode for name, mode in found.items() if not name.startswith(engines)}


@pytest.mark.parametrize("name", PLANTED)
def test_no_secret_is_told_anywhere(told: dict[str, str], name: str) -> None:
    assert [place for place, text in told.items() if PLANTED[name] in text] == []


def test_on_the_host_they_are_in_files_of_one_user_alone(
    ann: Developer, told: dict[str, str]
) -> None:
    found = files_with(ann.box, PLANTED)
    ours = but_the_engines(found)
    assert f"{HOME}/.env" in ours
    assert f"{HOME}/triggers/queue/secret" in ours
    assert all(
        name.endswith(("/.env", "/env", "/secret")) and found[name] == "600" for name in ours
    ), ours
    tried = [f"runuser -u nobody -- test -r '{name}' && echo '{name}'" for name in found]
    assert in_box(ann.box, "; ".join((*tried, "true"))) == ""


def test_the_engine_shows_them_only_of_who_needs_them_and_only_to_its_group(
    ann: Developer, told: dict[str, str]
) -> None:
    shows = {}
    for name in ("app", "postgres", "engine", "proxy"):
        text = ann.on_host(f"docker inspect server_agent_vnext_{name}")
        shows[name] = {kind for kind, value in PLANTED.items() if value in text}
    assert shows == {
        "app": {"token", "database", "webhook", "listener", "model"},
        "postgres": {"database"},
        "engine": set(),
        "proxy": set(),
    }
    stranger = f"runuser -u nobody -- docker inspect {APP} 2>&1 || true"
    assert "permission denied" in ann.on_host(stranger)
    stranger = f"runuser -u nobody -- cat {HOME}/.env {HOME}/releases/*/env 2>&1 || true"
    assert "denied" in ann.on_host(stranger)


def test_here_they_are_in_one_file_alone(ann: Developer, told: dict[str, str]) -> None:
    wanted = [word for value in PLANTED.values() for word in ("-e", value)]
    argv = ("grep", "-rlaF", *wanted, str(ann.clone))
    found = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout.splitlines() == [str(ann.clone / ".env")]


def test_what_is_committed_is_found(ann: Developer, told: dict[str, str]) -> None:
    ann.commit("docs/note.md", f"the password is {DOOR}\n")
    ended = ann.inv("secrets.check", "--json")
    ann.back()
    assert ended.code == 7, ended.said
    assert DOOR not in ended.said
    (found,) = json.loads(ended.out)["findings"]
    assert found["where"].startswith("docs/note.md (")
    assert found["what"] == "the value of DATABASE_URL in .env of vps stands there"


def opens(ann: Developer, password: str, sql: str = "select 1", role: str = "server_agent") -> str:
    return ann.on_host(TRY.format(password, role, sql), check=False)


def kept(ann: Developer) -> str:
    """The password that the host keeps."""
    return ann.on_host(f"sed -n \"s/^POSTGRES_PASSWORD='\\(.*\\)'/\\1/p\" {HOME}/.env")


def test_a_rotation_that_fails_changes_nothing(ann: Developer, told: dict[str, str]) -> None:
    before = ann.live()
    ended: Ended = ann.inv("secrets.rotate", STARTUP_WAIT="0.01")
    assert ended.code == 3, ended.said
    assert (ann.live(), kept(ann), opens(ann, DOOR)) == (before, DOOR, "1")


def test_a_rotation_that_is_killed_is_undone(
    ann: Developer, told: dict[str, str], said: Path
) -> None:
    before, there = ann.live(), ann.on_host(CONTAINERS)
    argv = ("-m", "invoke", "secrets.rotate")
    with going(ann, said, *argv, **ann.environment) as run:
        run.reach("→ health")
        in_box(ann.box, KILL)
        ended = run.end()
    assert ended.code == 3, ended.said
    assert "was killed, and what it had begun was undone" in ended.said
    assert (ann.live(), kept(ann), opens(ann, DOOR)) == (before, DOOR, "1")
    closed = "select count(*) from pg_authid where rolname = $$server_agent_b$$ and rolpassword"
    assert opens(ann, DOOR, f"{closed} is null") == "1"
    assert ann.on_host(CONTAINERS) == there


def test_the_password_is_changed_without_losing_anything(
    ann: Developer, told: dict[str, str]
) -> None:
    opens(ann, DOOR, "create table marks (mark text); insert into marks values (42)")
    before = ann.live()
    with Load(f"{ann.box.url}/health") as load:
        ended = ann.inv("secrets.rotate", STARTUP_WAIT="90")
    assert ended.code == 0, ended.said
    figures = load.figures()
    assert figures.sent > 100
    new = kept(ann)
    assert (new != DOOR, len(new) >= 32) == (True, True)
    for role in ("server_agent", "server_agent_b"):
        assert opens(ann, DOOR, role=role) == ""
    # The other role is the same to the database: to it all belongs, old and new.
    sql = "insert into marks values (43); select current_user, string_agg(mark, $$,$$) from marks"
    assert opens(ann, new, sql, "server_agent_b") == "server_agent|42,43"
    assert ann.live() not in ("", before)
    assert new not in ended.said
    assert figures.wrong == ()
    assert set(but_the_engines(files_with(ann.box, {"new": new})).values()) == {"600"}
    assert but_the_engines(files_with(ann.box, {"old": DOOR})) == {}
    # But for the database's own container, which was told it when it was new.
    shown = ann.on_host("docker inspect $(docker ps --all --quiet)").count(DOOR)
    assert shown == ann.on_host(f"docker inspect {DATABASE}").count(DOOR)


def test_the_release_before_knows_the_new_password(ann: Developer, told: dict[str, str]) -> None:
    after = ann.live()
    ended = ann.inv("rollback", STARTUP_WAIT="90")
    assert ended.code == 0, ended.said
    assert ann.live() not in ("", after)
    ended = ann.inv("smoke")
    assert ended.code == 0, ended.said


def test_it_can_be_changed_again_and_the_next_deployment_knows_it(
    ann: Developer, told: dict[str, str]
) -> None:
    before = kept(ann)
    ended = ann.inv("secrets.rotate", STARTUP_WAIT="90")
    assert ended.code == 0, ended.said
    assert opens(ann, before, role="server_agent_b") == ""
    assert opens(ann, kept(ann)) == "1"
    ann.commit("VERSION", "after a rotation\n")
    ended = ann.inv("deploy", STARTUP_WAIT="90")
    assert ended.code == 0, ended.said
