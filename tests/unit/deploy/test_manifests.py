"""Manifests of backups, whatever has become of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import backups
from deploy.postgres import backup
from deploy.postgres.backup import Backup
from deploy.postgres.retention import Rule, to_delete

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CHANGED = "2026-05-01T00:00:00+00:00"
GOOD = Backup(
    "b.sql.gz",
    "/b/b.sql.gz",
    "2026-05-01T00:00:00+00:00",
    10,
    "c0ffee",
    3,
    tables={"public.plain": 3},
    heads=("0001",),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | st.datetimes().map(str)


def parse(text: str, changed: str = CHANGED) -> Backup:
    return backup.parse(f"b.sql.gz 10 {changed} {text}", "/b")


def changed(**values: Any) -> str:
    return json.dumps(asdict(GOOD) | values)


def test_what_was_written_is_read() -> None:
    assert parse(backup.manifest(GOOD).decode()) == GOOD
    damaged = replace(GOOD, state="damaged", why="it ends early")
    assert parse(backup.manifest(damaged).decode()) == damaged
    assert parse(changed(bytes=11)).why == "it has 10 bytes, its manifest says 11"


def test_an_older_manifest_that_says_less_is_read() -> None:
    least = {"at": GOOD.at, "bytes": 10, "sha256": "c0ffee", "rows": 3}
    assert parse(json.dumps(least)) == replace(GOOD, tables={}, heads=())


@pytest.mark.parametrize(
    "text",
    [
        changed(plain=None),
        changed(bytes="10"),
        changed(bytes=10**400),
        changed(rows=True),
        changed(rows=1.5),
        changed(at="2026-05-01T00:00:00"),
        changed(at="0001-01-01T00:00:00+14:00"),
        changed(at="9999-12-31T23:00:00-14:00"),
        changed(at=""),
        changed(tables={"public.plain": "3"}),
        changed(heads="0001"),
        changed(why="\ud800"),
        json.dumps({"at": GOOD.at, "bytes": 10, "rows": 3}),
        "[" * 100_000,
        "[]",
        "3",
        "{",
    ],
)
def test_what_makes_no_sense_is_as_a_file_of_somebody_else(text: str) -> None:
    found = parse(text)
    assert (found.state, found.why) == ("unverified", "its manifest makes no sense")
    assert (found.at, found.bytes, found.sha256) == (CHANGED, 10, "")
    gone = parse(text, "never")
    assert (gone.state, gone.why, gone.at) == ("damaged", "its manifest makes no sense", "")


def test_what_is_ours_is_told_by_its_name() -> None:
    ours = replace(parse("{"), name="shop_2026-05-01_00-00-00.sql.gz")
    assert backup.is_garbled(ours, "shop")
    assert not backup.is_garbled(ours, "sho")
    assert not backup.is_garbled(replace(ours, name=f"{ours.name}\n"), "shop")
    assert not backup.is_garbled(replace(ours, name=f"{ours.name}.age"), "shop")
    assert not backup.is_garbled(replace(ours, why="no manifest"), "shop")


@given(
    ANYTHING
    | st.fixed_dictionaries(
        {},
        optional={
            key: st.just(value) | ANYTHING | (TIMES if key == "at" else st.nothing())
            for key, value in asdict(GOOD).items()
        },
    ).map(lambda given: asdict(GOOD) | given),
    st.sampled_from([CHANGED, "never", "12026-05-01T00:00:00+00:00"]),
)
def test_no_manifest_takes_a_verb_down(data: Any, changed: str) -> None:
    found = parse(json.dumps(data), changed)
    assert found.name == "b.sql.gz"
    assert backups.backup_line(vars(found), NOW)
    assert backup.manifest(found)
    assert len(to_delete([found, GOOD], Rule(1), now=NOW, protected=frozenset())) < 2


@given(st.text(st.characters(exclude_characters="\n")))
def test_no_text_takes_a_verb_down(text: str) -> None:
    assert parse(text).state in ("unverified", "damaged")
