"""A copy of a real database, apart from all that runs, and what is left of it afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy import recover
from deploy.host import Host
from deploy.outcome import Invalid
from deploy.postgres import access
from deploy.postgres.access import Database as Live
from deploy.releases import Release
from deploy.run import Caller, Run
from deploy.settings import Deploy, Proxy, Settings
from deploy.settings.schema import Database
from deploy.steps import apart
from tests.support.container import SECRET, address, docker, sql
from tests.support.dumps import AT, back_up, content

pytestmark = pytest.mark.slow

COMPOSE = """
services:
  localhost:
    image: another
    container_name: deploy-test-taken
    environment: {POSTGRES_USER: owner, POSTGRES_DB: live, POSTGRES_PASSWORD: %s}
    command: [postgres, -c, fsync=off]
    volumes: ["data:/var/lib/postgresql/data"]
  app-%s: {image: another, network_mode: host}
volumes:
  data: {name: deploy-test-taken}
"""


@pytest.fixture
def run(here: Host, filled: Live, tmp_path: Path) -> Iterator[Run]:
    """A run with a release that is live and one that comes."""
    settings = Settings(
        deploy=Deploy(project=filled.container, title="Shop", root=str(tmp_path)),
        proxy=Proxy(container="shop_proxy", network="shop"),
        database=Database(service="localhost"),
    )
    caller, now = Caller("ann", "laptop", "inv"), datetime.now(UTC)
    found = Run("deploy", settings, tmp_path, here, here, here.log, caller, now)
    found.previous, found.release = (
        Release(name, "a" * 40, "main", f"shop:{name}", now.isoformat(), "sha256:none")
        for name in ("r1", "r2")
    )
    for name in ("r1", "r2"):
        place = found.layout.place(name, "")
        Path(place.source).mkdir(parents=True)
        Path(place.env_file).write_text("")
        Path(place.compose_file).write_text(COMPOSE % (SECRET, name))
    yield found
    _remove(found)


def _remove(run: Run) -> None:
    left = {"run": run.id, "lines": [{"mark": run.mark}], "plan": None}
    recover._remove_trials(run, left)


def inside(container: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("docker", "exec", container, *words), capture_output=True, text=True, check=False
    )


def query(container: str, text: str) -> str:
    return inside(
        container, "psql", "-XqtA", "-U", "owner", "-d", "live", "-c", text
    ).stdout.strip()


def test_a_copy_holds_all_and_reaches_nothing(run: Run, filled: Live) -> None:
    sql(filled.container, f"drop role if exists clerk; create role clerk login password '{SECRET}'")
    sql(filled.container, "alter table plain owner to clerk")
    taken = back_up(filled, AT)
    assert run.previous
    copy = apart.copy_of(run, run.previous)
    apart.make(run, copy, run.previous, taken)
    (scratch,) = docker("ps", "-q", "--filter", f"name={copy.project}").split()
    assert query(scratch, "select count(*) from plain") == "204"
    assert query(scratch, "select tableowner from pg_tables where tablename = 'plain'") == "clerk"
    before = content(filled)
    query(scratch, "drop table plain")
    assert content(filled) == before
    url = f"postgresql://clerk:{SECRET}@{{}}/live"
    assert inside(scratch, "psql", url.format("127.0.0.1"), "-c", "select 1").returncode == 0
    live = address(filled.container)
    assert inside(filled.container, "pg_isready", "--host", live).returncode == 0
    assert inside(scratch, "pg_isready", "--host", live, "--timeout", "1").returncode
    network = f"{copy.project}_default"
    assert docker("network", "inspect", "--format", "{{.Internal}}", network).strip() == "true"
    sql(filled.container, "drop table plain; drop role clerk")


def test_of_a_copy_whose_run_was_killed_nothing_stays(run: Run, filled: Live) -> None:
    taken = back_up(filled, AT)
    assert run.previous
    copy = apart.copy_of(run, run.previous)
    apart.make(run, copy, run.previous, taken)
    (scratch,) = docker("ps", "-q", "--filter", f"name={copy.project}").split()
    mounts = "{{range .Mounts}}{{.Name}} {{end}}"
    volumes = docker("inspect", "--format", mounts, scratch).split()
    assert volumes
    _remove(run)
    of_it = ("--filter", f"label=com.docker.compose.project={copy.project}", "--quiet")
    assert not docker("ps", "--all", *of_it)
    assert not docker("network", "ls", *of_it)
    assert not [
        name for name in volumes if docker("volume", "inspect", name, check=False).strip() != "[]"
    ]
    assert access.container(run.target, run.settings)


def test_a_copy_is_shown_no_file_of_the_host_by_a_link(
    run: Run, filled: Live, tmp_path: Path
) -> None:
    taken = back_up(filled, AT)
    assert run.previous
    place = run.layout.place("r1", "")
    (tmp_path / "elsewhere.conf").write_text(SECRET)
    Path(place.source, "own.conf").symlink_to(tmp_path / "elsewhere.conf")
    mounted = '    volumes: ["./own.conf:/own.conf:ro", "data:'
    text = Path(place.compose_file).read_text().replace('    volumes: ["data:', mounted)
    Path(place.compose_file).write_text(text)
    copy = apart.copy_of(run, run.previous)
    with pytest.raises(Invalid, match=r"own\.conf leads out of the commit's files"):
        apart.make(run, copy, run.previous, taken)
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={copy.project}")
