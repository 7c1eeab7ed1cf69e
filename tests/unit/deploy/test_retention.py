"""Which backups may go, whatever there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy import backups
from deploy.postgres.backup import Backup, State
from deploy.postgres.retention import Rule, to_delete
from deploy.settings import Deploy, Keep, Proxy, Settings
from deploy.settings.schema import Database

NOW = datetime(2026, 6, 1, tzinfo=UTC)  # a Monday, and the first of a month
NONE: frozenset[str] = frozenset()


def backup(age: float, state: State = "good", name: str = "") -> Backup:
    at = (NOW - timedelta(days=age)).isoformat()
    return Backup(name or f"b{age}-{state}", f"/b/{age}", at, 1, "", 1, state=state)


def when(item: Backup) -> datetime:
    return datetime.fromisoformat(item.at)


def left(
    backups: Sequence[Backup],
    rule: Rule,
    now: datetime = NOW,
    protected: frozenset[str] = NONE,
) -> list[Backup]:
    doomed = to_delete(backups, rule, now=now, protected=protected)
    assert len({item.name for item in doomed}) == len(doomed)
    assert set(map(id, doomed)) <= set(map(id, backups))
    return [item for item in backups if item not in doomed]


# Names tell nothing of the order; several may be of one time.
BACKUPS = st.lists(
    st.builds(
        backup,
        st.one_of(st.integers(-5, 30), st.floats(-5, 400)),
        st.sampled_from(["good", "good", "damaged"]),
        st.text("abcdefgh", min_size=6, max_size=6),
    ),
    max_size=40,
    unique_by=lambda item: item.name,
)
COUNTS = st.integers(0, 8)
RULES = st.builds(Rule, st.integers(1, 30), COUNTS, COUNTS, COUNTS, st.integers(0, 6))
PERIODS: dict[str, Callable[[datetime], str]] = {
    "daily": lambda at: at.strftime("%Y-%m-%d"),
    "weekly": lambda at: at.strftime("%G-%V"),
    "monthly": lambda at: at.strftime("%Y-%m"),
}


@given(BACKUPS, RULES, st.data())
def test_what_goes_is_old_good_and_not_needed(
    backups: list[Backup], rule: Rule, data: st.DataObject
) -> None:
    names = [item.name for item in backups]
    protected = frozenset(data.draw(st.lists(st.sampled_from(names))) if names else [])
    doomed = to_delete(backups, rule, now=NOW, protected=protected)
    good = [item for item in backups if item.state == "good"]
    stay = [item for item in good if item not in doomed]
    assert all(item.state == "good" and item.name not in protected for item in doomed)
    assert len(stay) >= min(rule.least, len(good))
    limit = NOW - timedelta(days=rule.days)
    assert all(when(item) < limit for item in doomed)
    if good:
        newest = max(map(when, good))
        assert newest in map(when, stay)


def wanted(past: Sequence[Backup], count: int, period: Callable[[datetime], str]) -> set[str]:
    """By the definition, one at a time: the newest of its period, and that among the newest."""
    found = set()
    for item in past:
        own = period(when(item))
        fellows = [other for other in past if period(when(other)) == own]
        first = all((when(other), other.name) <= (when(item), item.name) for other in fellows)
        newer = {period(when(other)) for other in past if period(when(other)) > own}
        if first and len(newer) < count:
            found.add(item.name)
    return found


@given(BACKUPS, RULES)
@example([backup(age) for age in range(400)], Rule(1, 7, 4, 6))
def test_what_stays_is_what_the_definition_says(backups: list[Backup], rule: Rule) -> None:
    good = [item for item in backups if item.state == "good"]
    past = sorted(
        (item for item in good if when(item) <= NOW),
        key=lambda item: (when(item), item.name),
        reverse=True,
    )
    limit = NOW - timedelta(days=rule.days)
    stay = {item.name for item in good if when(item) >= limit}
    stay |= {item.name for item in past[: max(1, rule.least)]}
    for kind, period in PERIODS.items():
        stay |= wanted(past, getattr(rule, kind), period)
    assert {item.name for item in left(backups, rule) if item.state == "good"} == stay


@given(BACKUPS, RULES, st.data())
def test_bad_ones_and_those_of_the_future_change_nothing_for_the_others(
    backups: list[Backup], rule: Rule, data: st.DataObject
) -> None:
    others = [item for item in backups if item.state == "good" and when(item) <= NOW]
    protected = frozenset(
        data.draw(st.lists(st.sampled_from([item.name for item in others]))) if others else []
    )
    assert to_delete(backups, rule, now=NOW, protected=protected) == to_delete(
        others, rule, now=NOW, protected=protected
    )


@given(BACKUPS, RULES)
def test_to_do_it_again_changes_nothing(backups: list[Backup], rule: Rule) -> None:
    stay = left(backups, rule)
    assert left(stay, rule) == stay


@given(RULES, st.lists(st.sampled_from([-3, 0.25, 1, 1, 1, 2, 5]), max_size=60), st.data())
def test_day_after_day_what_a_release_needs_stays(
    rule: Rule, pauses: list[float], data: st.DataObject
) -> None:
    """Back up and prune again and again, with a clock that is set back now and then."""
    now, there, protected = NOW, list[Backup](), NONE
    for number, pause in enumerate(pauses):
        now += timedelta(days=pause)
        taken = replace(backup(0, name=f"b{number}"), at=now.isoformat())
        if data.draw(st.integers(0, 9)) == 0:
            protected |= {taken.name}
        there = left([*there, taken], rule, now, protected)
        assert taken in there
        assert protected <= {item.name for item in there}
        assert len(there) >= min(rule.least, number + 1)


@pytest.mark.parametrize("least", [1, 2, 3])
def test_at_the_limit_the_oldest_stays_when_a_release_needs_it(least: int) -> None:
    backups = [backup(age, name=f"b{age}") for age in (20, 30, 40, 50)]
    stay = left(backups, Rule(14, least=least), protected=frozenset({"b50"}))
    assert [item.name for item in stay] == [*(item.name for item in backups[:least]), "b50"]


def test_fourteen_days_are_fourteen_days() -> None:
    backups = [backup(age) for age in range(20)]
    doomed = to_delete(backups, Rule(14, least=3), now=NOW, protected=NONE)
    assert [item.name for item in doomed] == [f"b{age}-good" for age in range(15, 20)]


def test_days_weeks_and_months_have_their_newest() -> None:
    twice_a_day = [backup(half / 2, name=f"b{half / 2:g}") for half in range(1, 400)]

    def kept(rule: Rule) -> list[str]:
        return [f"{when(item):%m-%d %H}" for item in left(twice_a_day, rule)]

    assert kept(Rule(1)) == ["05-31 12", "05-31 00"]
    assert kept(Rule(1, daily=3)) == ["05-31 12", "05-31 00", "05-30 12", "05-29 12"]
    assert kept(Rule(1, weekly=3)) == ["05-31 12", "05-31 00", "05-24 12", "05-17 12"]
    assert kept(Rule(1, monthly=3)) == ["05-31 12", "05-31 00", "04-30 12", "03-31 12"]
    together = kept(Rule(1, daily=2, weekly=2, monthly=2))
    assert together == ["05-31 12", "05-31 00", "05-30 12", "05-24 12", "04-30 12"]


def test_an_iso_week_may_lie_in_two_years() -> None:
    # 2025-12-29 to 2026-01-04 is one week.
    days = ["2026-01-05", "2026-01-04", "2025-12-29", "2025-12-28"]
    backups = [replace(backup(0, name=day), at=f"{day}T12:00:00+00:00") for day in days]
    stay = left(backups, Rule(1, weekly=3))
    assert [item.name for item in stay] == ["2026-01-05", "2026-01-04", "2025-12-28"]


def test_the_order_is_by_time_wherever_it_was_taken() -> None:
    east = timezone(timedelta(hours=9))
    at = NOW - timedelta(days=20)
    first = replace(backup(20, name="z"), at=at.astimezone(east).isoformat())
    second = replace(backup(20, name="a"), at=(at + timedelta(hours=1)).isoformat())
    bare = replace(
        backup(20, name="b"), at=(at - timedelta(hours=1)).replace(tzinfo=None).isoformat()
    )
    assert left([first, second, bare], Rule(14)) == [second]
    # It was another day there, but not in UTC.
    assert left([first, second, bare], Rule(14, daily=2)) == [second, bare]


def test_bad_backups_push_no_good_one_out() -> None:
    backups = [backup(30), *(backup(age, "damaged") for age in range(20))]
    assert left(backups, Rule(1)) == backups
    assert left(backups, Rule(1, daily=2, weekly=2, monthly=2)) == backups


def test_what_is_of_the_future_stays_and_takes_no_place() -> None:
    ahead = [backup(-age) for age in (40, 3, 2, 1)]  # of before the clock was set back
    past = [backup(age) for age in (20, 21, 22)]
    assert left([*ahead, *past], Rule(14, least=2)) == [*ahead, *past[:2]]
    assert left([*ahead, *past], Rule(14, daily=2)) == [*ahead, *past[:2]]


def test_a_number_of_days_on_the_command_line_is_all_that_is_asked_for() -> None:
    keep = Keep(daily=7, weekly=4, monthly=6)
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root="/srv/shop"),
        proxy=Proxy(container="shop_proxy", network="net"),
        database=Database(keep_days=30, keep=keep, keep_min=2),
    )
    found = backups.with_keep(settings, 14).database
    assert (found.keep_days, found.keep, found.keep_min) == (14, Keep(), 2)
