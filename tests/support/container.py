"""Docker as a person types it, and SQL in a container of PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import time
import uuid
from collections.abc import Iterator

import psycopg2
import pytest

from sandbox import images

IMAGES = ("postgres:15-bookworm", "postgres:17-trixie")
EACH_VERSION = pytest.mark.parametrize("server", IMAGES, indirect=True)
SECRET = "correct-horse-battery-staple"


def docker(*words: str, stdin: str = "", check: bool = True) -> str:
    done = subprocess.run(
        ("docker", *words), input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words[:3])}: {done.stderr}")
    return done.stdout


@contextlib.contextmanager
def serving(image: str, database: str = "live") -> Iterator[str]:
    """Give the name of a container with PostgreSQL, ready, until the block ends."""
    images.ensure((image,))
    name = f"deploy-test-{uuid.uuid4().hex[:8]}"
    docker(
        *("run", "--detach", "--name", name),
        *("--label", f"com.docker.compose.project={name}"),
        *("--label", "com.docker.compose.service=localhost"),
        *("--tmpfs", "/var/lib/postgresql/data", "--env", f"POSTGRES_PASSWORD={SECRET}"),
        *("--env", "POSTGRES_USER=owner", "--env", f"POSTGRES_DB={database}"),
        *(image, "postgres", "-c", "fsync=off"),
    )
    try:
        ready = ("exec", name, "pg_isready", "--host", "127.0.0.1", "--quiet")
        ends = time.monotonic() + 60
        while subprocess.run(("docker", *ready), timeout=30, check=False).returncode:
            assert time.monotonic() < ends, docker("logs", name)
            time.sleep(0.1)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


@functools.cache
def address(container: str) -> str:
    """Return the address of a container on Docker's own network."""
    return docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container).strip()


def sql(container: str, text: str, name: str = "live") -> str:
    """Run SQL in a container's database; return the rows of the last statement, as psql would."""
    given = f"host={address(container)} user=owner password={SECRET} dbname={name}"
    with contextlib.closing(psycopg2.connect(given)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text)
            rows = cursor.fetchall() if cursor.description else []
    return "\n".join("|".join(shown(value) for value in row) for row in rows)


def shown(value: object) -> str:
    """Return a value as psql writes it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return "" if value is None else str(value)
