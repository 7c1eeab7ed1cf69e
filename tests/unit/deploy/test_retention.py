"""Which backups may go, whatever there is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from deploy.postgres.backup import Backup
from deploy.postgres.retention import to_delete

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def backup(age: float, state: str = "good") -> Backup:
    at = (NOW - timedelta(days=age)).isoformat()
    return Backup(f"b{age}-{state}", f"/b/{age}", at, 1, "", 1, state=state)


BACKUPS = st.lists(
    st.builds(backup, st.floats(-5, 60), st.sampled_from(["good", "good", "damaged"])),
    max_size=20,
    unique_by=lambda item: item.name,
)


@given(BACKUPS, st.integers(1, 30), st.integers(1, 6), st.data())
def test_what_goes_is_old_good_and_not_needed(
    backups: list[Backup], keep_days: int, keep_min: int, data: st.DataObject
) -> None:
    names = [item.name for item in backups]
    protected = frozenset(data.draw(st.lists(st.sampled_from(names))) if names else [])
    doomed = to_delete(
        backups, now=NOW, keep_days=keep_days, keep_min=keep_min, protected=protected
    )
    good = [item for item in backups if item.state == "good"]
    left = [item for item in good if item not in doomed]
    assert all(item.state == "good" and item.name not in protected for item in doomed)
    assert len(left) >= min(keep_min, len(good))
    limit = (NOW - timedelta(days=keep_days)).isoformat()
    assert all(item.at < limit for item in doomed)
    if good:
        assert max(good, key=lambda item: item.at) in left


def test_fourteen_days_are_fourteen_days() -> None:
    backups = [backup(age) for age in range(20)]
    doomed = to_delete(backups, now=NOW, keep_days=14, keep_min=3, protected=frozenset())
    assert [item.name for item in doomed] == [f"b{age}-good" for age in range(15, 20)]


def test_bad_backups_push_no_good_one_out() -> None:
    backups = [backup(30), *(backup(age, "damaged") for age in range(20))]
    assert not to_delete(backups, now=NOW, keep_days=1, keep_min=1, protected=frozenset())
    older = replace(backup(40), name="older")
    doomed = to_delete(
        [*backups, older], now=NOW, keep_days=1, keep_min=1, protected=frozenset({"older"})
    )
    assert doomed == ()
