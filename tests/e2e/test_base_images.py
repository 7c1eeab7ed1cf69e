"""The base images keep the official contract, whoever built them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from sandbox.machine.facts import BASE_IMAGES
from sandbox.shell import Answer, ask, until

PYTHON, POSTGRES, CADDY = BASE_IMAGES
PASSWORD = "p@ss 'word\""


def docker(*argv: str) -> Answer:
    return ask(("docker", *argv), deadline=90)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    name = f"server-agent-test-{uuid.uuid4().hex[:8]}"
    started = docker(
        *("run", "--detach", "--name", name, "--env=POSTGRES_DB=agent", "--env=POSTGRES_USER=me"),
        *(f"--env=POSTGRES_PASSWORD={PASSWORD}", POSTGRES, "postgres", "-c", "max_connections=23"),
    )
    assert started.ok, started.err
    try:
        ready = ("exec", name, "pg_isready", "--quiet", "--host=127.0.0.1")
        assert until(lambda: docker(*ready).ok, deadline=60)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def query(name: str, text: str, *, host: str = "", password: str = "") -> Answer:
    where = [f"--host={host}"] if host else []
    return docker(
        *("exec", f"--env=PGPASSWORD={password}", name, "psql", "--no-password", "--tuples-only"),
        *("--no-align", "--username=me", "--dbname=agent", f"--command={text}", *where),
    )


def test_postgres_makes_the_database_and_takes_arguments(database: str) -> None:
    assert query(database, "select current_database()").out.strip() == "agent"
    assert query(database, "show max_connections").out.strip() == "23"
    assert query(database, "show data_directory").out.strip() == "/var/lib/postgresql/data"


def test_postgres_asks_for_the_password_over_the_network(database: str) -> None:
    address = docker(
        "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", database
    ).out.strip()
    assert query(database, "select 7", host=address, password=PASSWORD).out.strip() == "7"
    refused = query(database, "select 7", host=address, password="wrong")
    assert not refused.ok
    assert "password authentication failed" in refused.err


def test_postgres_stops_cleanly_and_keeps_what_it_had(database: str) -> None:
    assert query(database, "create table kept as select 1 as one").ok
    assert docker("stop", database).ok
    state = docker("inspect", "--format", "{{.State.ExitCode}}", database).out.strip()
    assert state == "0"
    assert docker("start", database).ok
    assert until(lambda: query(database, "select one from kept").out.strip() == "1", deadline=30)


def test_postgres_refuses_to_start_without_a_password() -> None:
    answer = docker("run", "--rm", "--env=POSTGRES_DB=agent", POSTGRES)
    assert not answer.ok
    assert "superuser password is not specified" in answer.err


def said_in(image: str, script: str) -> list[str]:
    """Run a shell text in an image; return the lines that it wrote."""
    answer = docker("run", "--rm", image, "sh", "-c", script)
    assert answer.ok, answer.err
    return answer.out.splitlines()


def test_python_stands_where_the_official_image_has_it() -> None:
    script = (
        "for name in python python3 pip; do command -v $name; done;"
        " python -m venv /opt/venv && /opt/venv/bin/pip --version"
    )
    lines = said_in(PYTHON, script)
    assert lines[:3] == [f"/usr/local/bin/{name}" for name in ("python", "python3", "pip")]
    assert "/opt/venv/lib/python3.11/site-packages" in lines[3]


def test_caddy_serves_and_has_a_client_for_health_checks() -> None:
    script = (
        "caddy validate --config /etc/caddy/Caddyfile --adapter caddyfile 2>/dev/null"
        " && command -v wget && pwd && echo $XDG_CONFIG_HOME $XDG_DATA_HOME"
    )
    assert said_in(CADDY, script)[-2:] == ["/srv", "/config /data"]
