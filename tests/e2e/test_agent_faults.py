"""The agent while what it leans on fails, and when it is told to go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2 import sql

from sandbox.bot_api import MASTER, TOKEN, BotApi, Trouble
from tests.support import agent, postgres
from tests.support.agent import Running, eventually
from tests.support.ports import free_port
from tests.support.postgres import Line


@pytest.fixture
def line(migrated_database: str) -> Iterator[Line]:
    with postgres.line(migrated_database) as found:
        yield found


def message(number: int, text: str = "/help") -> dict[str, object]:
    return {"update_id": number, "message": {"chat": {"id": int(MASTER)}, "text": text}}


def stored(database: str) -> list[int]:
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        found.execute("select update_id from telegram_updates order by update_id")
        return [row[0] for row in found.fetchall()]


def refuses(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((str(parts.hostname), parts.port or 80), 5).close()
    except ConnectionError:
        return True
    return False


def test_without_a_database_health_says_so_and_recovers(postgres_url: str, tmp_path: Path) -> None:
    with postgres.scratch(postgres_url) as database:
        agent.migrate(database)
        name = sql.Identifier(database.rpartition("/")[2])
        with agent.running(agent.environment(database), tmp_path / "agent.log") as found:
            eventually(lambda: found.get().status_code == 200)
            away = sql.SQL("alter database {} with allow_connections false").format(name)
            postgres.execute(postgres_url, away)
            kill = sql.SQL(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = {}"
            ).format(sql.Literal(database.rpartition("/")[2]))
            postgres.execute(postgres_url, kill)
            eventually(lambda: found.get().status_code == 503)
            assert found.get().json()["status"] == "down"
            assert found.send(message(1, "/help")).status_code == 503
            assert "database cannot be used: " in found.output.read_text()
            back = sql.SQL("alter database {} with allow_connections true").format(name)
            postgres.execute(postgres_url, back)
            eventually(lambda: found.get().json()["status"] == "ok")


def test_a_database_that_comes_late_is_no_end(tmp_path: Path) -> None:
    nowhere = f"postgresql://a:b@127.0.0.1:{free_port()}/c"
    with agent.running(agent.environment(nowhere), tmp_path / "agent.log") as found:
        assert found.get().status_code == 503


def test_a_frozen_database_hangs_nothing(line: Line, tmp_path: Path) -> None:
    with agent.running(agent.environment(line.url), tmp_path / "agent.log") as found:
        eventually(lambda: found.get().json()["status"] == "ok")
        assert found.send(message(1)).status_code == 200
        line.freeze()
        # On the connection that was open, and then on a new one, which is still taken.
        assert found.get().json()["status"] == "down"
        assert found.send(message(2)).status_code == 503
        line.thaw()
        eventually(lambda: found.get().json()["status"] == "ok")
        assert found.send(message(3)).status_code == 200


def test_a_restarted_database_costs_no_update(
    line: Line, migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(line.url, telegram.url)
    with agent.running(settings, tmp_path / "agent.log") as found:
        eventually(lambda: found.get().json()["status"] == "ok")
        for number in range(1, 5):
            assert found.send(message(number)).status_code == 200
            line.cut()
            assert found.get().status_code == 200
            line.cut()
        eventually(lambda: len(telegram.texts()) >= 4)
        assert stored(migrated_database) == [1, 2, 3, 4]


def test_without_its_tables_the_agent_asks_for_patience(
    empty_database: str, tmp_path: Path
) -> None:
    with agent.running(agent.environment(empty_database), tmp_path / "agent.log") as found:
        assert found.send(message(1)).status_code == 503
        agent.migrate(empty_database)
        assert found.send(message(1)).status_code == 200


def test_the_containers_health_check_tells_up_from_down(
    migrated_database: str, tmp_path: Path
) -> None:
    def check(port: int) -> int:
        words = (sys.executable, "-m", "server_agent.healthcheck")
        env = {**os.environ, "PORT": str(port)}
        return subprocess.run(words, cwd=agent.ROOT, env=env, timeout=30, check=False).returncode

    with agent.running(agent.environment(migrated_database), tmp_path / "agent.log") as found:
        eventually(lambda: found.get().status_code == 200)
        assert check(urlsplit(found.url).port or 0) == 0
    assert check(free_port()) == 1


def test_a_request_in_flight_is_finished(migrated_database: str, tmp_path: Path) -> None:
    body = json.dumps(message(1)).encode()
    head = (
        "POST /webhook/telegram HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
        f"X-Telegram-Bot-Api-Secret-Token: {agent.SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with agent.running(agent.environment(migrated_database), tmp_path / "agent.log") as found:
        parts = urlsplit(found.url)
        with socket.create_connection((str(parts.hostname), parts.port or 80), 20) as wire:
            wire.sendall(head + body[:5])
            eventually(lambda: found.get().status_code == 200)
            found.process.send_signal(signal.SIGTERM)
            eventually(lambda: refuses(found.url))
            wire.sendall(body[5:])
            answer = wire.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert found.process.wait(20) == 0
    assert stored(migrated_database) == [1]


def test_of_two_agents_one_leads_and_the_other_follows_it(
    migrated_database: str, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database)

    def roles(*agents: Running) -> list[str]:
        return sorted(item.get().json()["checks"]["proactive"]["role"] for item in agents)

    with (
        agent.running(settings, tmp_path / "second.log") as second,
        agent.running(settings, tmp_path / "first.log") as first,
    ):
        eventually(lambda: roles(first, second) == ["leader", "standby"])
        leader, other = (first, second) if roles(first) == ["leader"] else (second, first)
        leader.process.kill()
        leader.process.wait()
        eventually(lambda: roles(other) == ["leader"])


def test_sigterm_is_a_clean_end_and_no_secret_is_in_the_log(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url, LOG_LEVEL="DEBUG")
    telegram.fail_next(Trouble(500), Trouble(0))
    with agent.running(settings, tmp_path / "agent.log") as found:
        found.send(message(1, "/status"))
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(20) == 0
        told = found.output.read_text()
    assert "update 1" in told or "POST /webhook/telegram" in told
    for secret in (TOKEN, agent.SECRET, migrated_database):
        assert secret not in told
    for line in told.splitlines():
        json.loads(line)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "DATABASE_URL is not set"),
        (
            {"DATABASE_URL": "postgresql://u:hunter2/x@h/d"},
            "DATABASE_URL is no address of a PostgreSQL database",
        ),
    ],
)
def test_settings_that_cannot_be_used_end_it_in_one_line(given: dict[str, str], why: str) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "server_agent"),
        cwd=agent.ROOT,
        env={"PATH": "/usr/bin:/bin", **given},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 7
    assert done.stderr == f"error: {why}\n"
