"""Migrations on a real PostgreSQL: one at a time, and giving way to who holds a lock."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest

from deploy.command import Command, script
from deploy.host import Host
from deploy.outcome import DeployFailed
from deploy.postgres import access
from deploy.postgres.access import Database
from deploy.releases import Release
from deploy.run import Caller, Run
from deploy.settings import Deploy, Migrate, Proxy, Settings
from deploy.steps import live
from tests.support.agent import eventually
from tests.support.container import SECRET, address, sql

ALTER = """
docker exec --env PGOPTIONS="-c lock_timeout=100" "$1" \
  psql -X -U owner -d live -c "alter table plain add column more int" 2>&1 | tee -a "$2"
"""


def holders(database: Database) -> str:
    return sql(database.container, "select count(*) from pg_locks where locktype = 'advisory'")


def test_whoever_migrates_is_alone(database: Database) -> None:
    with access.alone(database, "shop", "deploy first", 30):
        pid = sql(database.container, "select pid from pg_locks where locktype = 'advisory'")
        with (
            pytest.raises(DeployFailed, match="Somebody else migrates") as refused,
            access.alone(database, "shop", "deploy second", 30, 0.1),
        ):
            pass
        assert f"process {pid} (deploy first)" in refused.value.why
        with access.alone(database, "another", "deploy third", 30, 0.1):
            assert holders(database) == "2"
    eventually(lambda: holders(database) == "0")  # the server notices that a client is gone
    with access.alone(database, "shop", "deploy fourth", 30, 0.1):
        assert holders(database) == "1"


def test_a_server_that_hangs_or_is_gone_is_told(database: Database) -> None:
    gone = replace(database, container="deploy-test-nobody")
    with (
        pytest.raises(DeployFailed, match="cannot be had") as refused,
        access.alone(gone, "shop", "deploy", 30),
    ):
        pass
    assert "deploy-test-nobody" in refused.value.why


def test_a_holder_that_is_killed_frees_the_lock(database: Database) -> None:
    text = access.ALONE.replace('"$1" sh', f'"{database.container}" sh')
    words = ("bash", "-c", text, "x", "", "deploy killed", str(access.lock_key("shop")), "1s")
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as holder:
        assert holder.stdin
        holder.stdin.write(access.TAKE)
        holder.stdin.flush()
        eventually(lambda: holders(database) == "1")
        subprocess.run(("pkill", "-KILL", "-s", str(holder.pid)), check=True, timeout=10)
    with access.alone(database, "shop", "deploy next", 30):
        assert holders(database) == "1"


@pytest.fixture
def run(here: Host, tmp_path: Path) -> Run:
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root=str(tmp_path)),
        proxy=Proxy(container="shop_proxy", network="shop"),
    )
    caller, now = Caller("ann", "laptop", "inv"), datetime.now(UTC)
    return Run("deploy", settings, tmp_path, here, here, here.log, caller, now)


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


@pytest.fixture
def alter(filled: Database, said: Path) -> Command:
    return script(f"set -o pipefail; {ALTER}", filled.container, str(said))


@contextlib.contextmanager
def reading(database: Database) -> Iterator[None]:
    """Keep a table locked, as a long transaction does."""
    given = f"host={address(database.container)} user=owner password={SECRET} dbname=live"
    with contextlib.closing(psycopg2.connect(given)) as other:
        with other.cursor() as cursor:
            cursor.execute("select count(*) from plain")
        yield


def test_a_migration_gives_way_and_is_tried_again(
    run: Run, filled: Database, alter: Command, said: Path
) -> None:
    with reading(filled):
        result = live.apply(run, alter)
    assert not result.ok
    assert said.read_text().count("lock timeout") == 1 + live.RETRIES
    assert live.apply(run, alter).ok


def test_a_migration_that_is_wrong_is_not_tried_again(
    run: Run, filled: Database, alter: Command, said: Path
) -> None:
    sql(filled.container, "drop table plain")
    assert not live.apply(run, alter).ok
    assert said.read_text().count("does not exist") == 1


def test_a_migration_that_failed_may_have_changed_the_database(run: Run) -> None:
    run.settings = run.settings.model_copy(update={"migrate": Migrate(command=("false",))})
    run.release = Release("r1", "c0ffee", "main", "shop:r1", "2026-01-01T00:00:00+00:00")
    with pytest.raises(DeployFailed) as caught:
        live.migrate(run)
    assert "inv report" in caught.value.next_step
    assert "the database may have been changed" in caught.value.next_step
