"""Whatever a database holds comes back, by a comparison that knows nothing of dumps."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from deploy.postgres import restore
from deploy.postgres.access import Database
from tests.support import any_database
from tests.support.any_database import FULL, everything
from tests.support.container import EACH_VERSION, sql
from tests.support.dumps import AT, back_up, quiet

pytestmark = pytest.mark.slow


@EACH_VERSION
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(any_database.any_database())
@example(FULL)
@example("")
def test_what_comes_back_is_the_same(database: Database, ddl: str) -> None:
    container = database.container
    shutil.rmtree(Path(database.folder), ignore_errors=True)
    sql(container, "drop database if exists live with (force)", "postgres")
    sql(container, "create database live", "postgres")
    if ddl:
        sql(container, ddl)
    before = everything(container)
    taken = back_up(database, AT)
    pair = restore.pair_of(database, datetime.now(UTC))
    restore.swap_in(database, pair, taken.path, taken, quiet)
    restore.finish(database, restore.Restored(pair, taken, 0, 0))
    after = everything(container)
    assert set(before) == set(after)
    for kind, found in before.items():
        assert after[kind] == found, kind
