"""Which release a rollback brings back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import releases
from deploy.outcome import DeployFailed
from deploy.releases import Release


def release(number: int, state: str = "good", live_at: str | None = None) -> Release:
    sha = f"{number:x}".rjust(40, "0")[::-1]
    return Release(
        id=f"20260101-0000{number:02d}-{sha[:7]}",
        sha=sha,
        ref="main",
        tag=f"shop:{sha[:7]}",
        created="",
        image=f"sha256:{number}",
        state=state,  # type: ignore[arg-type]
        live_at=f"2026-01-01T00:00:{number:02d}" if live_at is None else live_at,
    )


def test_the_one_before_is_the_target() -> None:
    known = [release(1), release(2), release(3)]
    assert releases.rollback_target(known, known[2]) == known[1]


def test_failed_releases_are_no_targets_however_many() -> None:
    known = [release(1), release(2), release(3, "failed", ""), release(4, "failed", "")]
    assert releases.rollback_target(known, known[1]) == known[0]


def test_rolling_back_twice_goes_one_further_back() -> None:
    one, two, three = release(1), release(2), release(3)
    back = replace(two, live_at="2026-01-01T00:01:00")
    left = replace(three, state="left")
    assert releases.rollback_target([one, back, left], back) == one
    again = replace(one, live_at="2026-01-01T00:02:00")
    assert releases.rollback_target([again, replace(back, state="left"), left], again) is None


def test_a_rollback_over_several_leaves_all_of_them() -> None:
    one, two, three, four = (release(number) for number in range(1, 5))
    left = releases.passed_over([one, two, three, four], two, four)
    assert [(item.id, item.state) for item in left] == [(three.id, "left"), (four.id, "left")]
    back = replace(two, live_at="2026-01-01T00:01:00")
    assert releases.rollback_target([one, back, *left], back) == one
    five = replace(release(5), live_at="2026-01-01T00:02:00")
    assert releases.rollback_target([one, back, *left, five], five) == back


def test_after_a_rollback_and_a_new_deployment_the_left_one_is_skipped() -> None:
    one = replace(release(1), live_at="2026-01-01T00:01:00")
    two = replace(release(2), state="left")
    four = replace(release(4), live_at="2026-01-01T00:02:00")
    assert releases.rollback_target([one, two, four], four) == one


def test_with_nothing_live_the_newest_good_one_is_the_target() -> None:
    assert releases.rollback_target([release(1), release(2), release(3, "failed")], None) == (
        release(2)
    )


STATES = st.sampled_from(["new", "good", "failed", "left"])


@given(st.lists(STATES, max_size=12), st.data())
def test_a_target_was_live_is_good_and_is_not_the_live_one(
    states: list[str], data: st.DataObject
) -> None:
    known = [
        release(number, state, "" if state in ("new", "failed") else None)
        for number, state in enumerate(states, start=1)
    ]
    good = [item for item in known if item.state == "good"]
    live = data.draw(st.sampled_from(good)) if good else None
    target = releases.rollback_target(known, live)
    if target is not None:
        assert target.state == "good"
        assert target.live_at
        assert target != live
    older = [item for item in good if live is None or item.live_at < live.live_at]
    assert target == (older[-1] if older else None)


def test_a_release_is_found_by_the_start_of_its_id_or_commit() -> None:
    known = [release(1), release(2, "left")]
    assert releases.find(known, known[1].id) == known[1]
    assert releases.find(known, known[0].sha[:12]) == known[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [("zzz", "no release zzz"), ("20260101-000003", "never was live"), ("2026", "several")],
)
def test_what_cannot_be_meant_is_refused(name: str, says: str) -> None:
    known = [release(1), release(2), release(3, "failed", "")]
    with pytest.raises(DeployFailed, match=says) as caught:
        releases.find(known, name)
    assert known[0].id in caught.value.next_step


@given(st.text(max_size=200))
def test_garbage_is_no_release(text: str) -> None:
    assert releases.parse(text) is None


def test_a_release_survives_its_file() -> None:
    item = replace(release(1), images={"web": "sha256:1"}, heads=("0001",), backup="b1")
    assert releases.parse(json.dumps(asdict(item))) == item
    older = {key: value for key, value in asdict(item).items() if key != "backup"}
    assert releases.parse(json.dumps(older)) == replace(item, backup="")
    assert releases.parse(json.dumps({**older, "backup": None})) is None
    broken = {**asdict(item), "state": "great"}
    assert releases.parse(json.dumps(broken)) is None
    assert releases.parse(json.dumps({**asdict(item), "id": 3})) is None


@given(st.lists(STATES, max_size=20), st.integers(2, 8), st.data())
def test_what_is_forgotten_is_never_needed(
    states: list[str], keep: int, data: st.DataObject
) -> None:
    known = [
        release(number, state, "" if state in ("new", "failed") else None)
        for number, state in enumerate(states, start=1)
    ]
    good = [item for item in known if item.state == "good"]
    live = data.draw(st.sampled_from(good)) if good else None
    doomed = releases.superfluous(known, live, keep)
    assert live not in doomed
    assert releases.rollback_target(known, live) not in doomed
    once_live = [item for item in known if item.live_at]
    assert not set(map(id, once_live[-keep:])) & set(map(id, doomed))
    # Failed ones all go, and count for nothing.
    assert {item.id for item in known if not item.live_at} <= {item.id for item in doomed}
    assert len([item for item in once_live if item not in doomed]) <= keep + 2


def test_a_clock_that_was_set_back_changes_no_order() -> None:
    first = replace(release(1), live_at="2026-01-02T00:00:00+00:00")
    moment = releases.next_moment([first], datetime(2026, 1, 1, tzinfo=UTC))
    second = replace(release(2), live_at=moment)
    assert releases.rollback_target([first, second], second) == first
    assert releases.next_moment([first], datetime(2026, 1, 3, tzinfo=UTC)) > moment
    assert releases.next_moment([], datetime(2026, 1, 3, tzinfo=UTC)) == "2026-01-03T00:00:00+00:00"
