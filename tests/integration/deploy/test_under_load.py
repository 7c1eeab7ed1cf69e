"""Backups and restores of a database that 200 transactions a second change meanwhile."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from deploy.postgres import restore
from deploy.postgres.access import Database
from tests.support.agent import eventually
from tests.support.container import sql
from tests.support.dumps import AT, ORIGIN, back_up, databases, quiet
from tests.support.load import balance, bank, knocking, longest_refusal, traffic

pytestmark = pytest.mark.slow

LIMIT = 2.0  # seconds: what a restore promises to those who use the database


@pytest.fixture
def busy(database: Database) -> Database:
    bank(database.container)
    return database


def test_a_backup_costs_no_transaction_and_holds_one_moment(busy: Database) -> None:
    with traffic(busy.container) as runs:
        before = balance(busy.container)
        taken = back_up(busy, AT)
        after = balance(busy.container)
    assert [run.said for run in runs if run.code] == []
    assert [run.number("failed transactions") for run in runs] == [0] * len(runs)
    done = sum(run.number("transactions actually processed") for run in runs)
    assert balance(busy.container) == done
    restore.beside(busy, taken.name, "copy", AT, quiet)
    assert before <= balance(busy.container, "copy") <= after <= done
    assert taken.tables["public.pgbench_history"] == balance(busy.container, "copy")
    sql(busy.container, "drop database copy", "postgres")


def test_a_restore_refuses_only_while_it_swaps(busy: Database) -> None:
    swapping: list[float] = []

    def heard(text: str) -> None:
        if text.endswith("swapping"):
            swapping.append(time.time())

    with traffic(busy.container) as runs, knocking(busy.container) as knocks:
        taken = back_up(busy, AT)
        known = balance(busy.container)
        done = restore.restore(busy, taken.name, ORIGIN, datetime.now(UTC), heard)
        returned = time.time()
        eventually(lambda: balance(busy.container) > taken.tables["public.pgbench_history"])
    failed = [run for run in runs if run.code]
    assert failed, "sessions are ended by a swap"
    assert all(run.ended > swapping[0] and run.began < returned for run in failed), failed
    assert any(knock.refused for knock in knocks)
    assert longest_refusal(knocks) < LIMIT
    restore.undo(busy, done)
    assert balance(busy.container) >= known
    assert databases(busy) == "live postgres"
