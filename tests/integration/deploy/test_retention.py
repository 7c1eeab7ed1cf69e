"""Old backups go from the disk, and what a release needs stays on it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy import releases
from deploy.host import Host
from deploy.outcome import Failure
from deploy.postgres import backup
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup
from deploy.releases import Release
from deploy.run import Caller, Run
from deploy.settings import Deploy, Keep, Proxy, Settings, schema
from deploy.steps import data, make

# Stands in for rm: it is killed when it has removed the first of what it was given.
KILLED_RM = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
/bin/rm -f -- "$2"
kill -s KILL $$
"""


def run_of(kind: str, here: Host, root: Path, project: str, keep: Keep | None = None) -> Run:
    settings = Settings(
        deploy=Deploy(project=project, title="Shop", root=str(root)),
        proxy=Proxy(container="shop_proxy", network="net"),
        database=schema.Database(service="localhost", keep_min=1, keep=keep or Keep()),
    )
    caller, now = Caller("ann", "laptop", "inv"), datetime.now(UTC)
    run = Run(kind, settings, root, here, here, here.log, caller, now)
    Path(run.layout.backups).mkdir(parents=True, exist_ok=True)
    return run


def release(name: str, **known: str) -> Release:
    return Release(name, "a" * 40, "main", "shop:aaaaaaa", "noon", **known)  # type: ignore[arg-type]


def put(folder: str, days: float) -> Backup:
    """Put a backup of that age on the disk, with its manifest."""
    at = datetime.now(UTC) - timedelta(days=days)
    name = f"b{days:g}.sql.gz"
    item = Backup(name, f"{folder}/{name}", at.isoformat(), 3, "", 1, {"public.plain": 1})
    Path(item.path).write_bytes(b"abc")
    Path(f"{item.path}.json").write_text(json.dumps(asdict(item)))
    return item


def files(run: Run) -> set[str]:
    return {path.name for path in Path(run.layout.backups).iterdir()}


def pairs(*names: str) -> set[str]:
    return {f"{name}{suffix}" for name in names for suffix in ("", ".json")}


def test_a_deployment_takes_a_backup_and_keeps_those_of_its_releases(
    filled: Database, here: Host, tmp_path: Path
) -> None:
    run = run_of("deploy", here, tmp_path, filled.container)
    needed, _, _ = (put(run.layout.backups, days) for days in (60, 50, 40))
    damaged = put(run.layout.backups, 70)
    Path(damaged.path).write_bytes(b"ab")
    run.releases = (release("r1", backup=needed.name, live_at="noon"), release("r2"))
    run.release = release("r3")
    done = make.back_up(run)
    assert done.state == "ok"
    assert run.backup is not None
    assert run.release.backup == run.backup.name
    assert files(run) == pairs(needed.name, damaged.name, run.backup.name)
    # Written down before its migrations run.
    Path(run.layout.release("r3")).mkdir(parents=True)
    assert make.ship(run).state == "skipped"
    (known,) = releases.load(here, run.layout)
    assert known == run.release


def test_where_the_backup_fails_none_goes_and_the_release_names_none(
    database: Database, here: Host, tmp_path: Path
) -> None:
    run = run_of("deploy", here, tmp_path, database.container)
    older = [put(run.layout.backups, days).name for days in (60, 50)]
    run.release = release("r1")
    done = make.back_up(run)  # the database is empty, and was not
    assert done.state == "warned"
    assert run.release.backup == ""
    assert files(run) == pairs(*older)


def test_a_backup_that_was_asked_for_lets_go_of_what_no_rule_keeps(
    filled: Database, here: Host, tmp_path: Path
) -> None:
    run = run_of("backup", here, tmp_path, filled.container, Keep(monthly=3))
    for days in (400, 370, 100, 99.5):
        put(run.layout.backups, days)
    assert data.back_up(run).state == "ok"
    assert run.backup is not None
    # Whichever months these days were in: the newest of three stay, and the oldest is none.
    assert pairs(run.backup.name, "b99.5.sql.gz") < files(run)
    assert len(files(run)) == 6
    assert not files(run) & pairs("b400.sql.gz")


def test_a_kill_between_a_backup_and_its_manifest_leaves_nothing_that_counts(
    here: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of("backup", here, tmp_path, "shop")
    doomed, stays = put(run.layout.backups, 50), put(run.layout.backups, 1)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "rm").write_text(KILLED_RM)
    (tools / "rm").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        with pytest.raises(Failure):
            backup.prune(here, [doomed])
    assert files(run) == {doomed.name, *pairs(stays.name)}
    found = backup.listing(here, run.layout.backups)
    assert [item.name for item in found if item.state == "good"] == [stays.name]
    backup.prune(here, [doomed])
    assert files(run) == pairs(stays.name)
