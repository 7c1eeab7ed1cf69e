"""Which backups may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from deploy.postgres.backup import Backup


@dataclass(frozen=True)
class Rule:
    """Which backups stay: each number asks for some, and what any of them asks for stays.

    Args:
        days: All that are younger than so many days.
        daily: The newest one of each of the newest so many days that have one, UTC.
        weekly: The same for ISO weeks.
        monthly: The same for months.
        least: So many of the newest, however old.
    """

    days: int
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    least: int = 1


def to_delete(
    backups: Iterable[Backup], rule: Rule, *, now: datetime, protected: frozenset[str]
) -> tuple[Backup, ...]:
    """Return the backups that may go, newest first.

    Only good ones count and only good ones go, so that bad ones never push them out. The
    newest good one always stays. One from the future, since the clock was set back, stays too
    and takes no other's place.

    Args:
        backups: All there are.
        rule: Which ones stay.
        now: UTC.
        protected: Names that stay.
    """
    good = sorted(
        ((_when(item), item) for item in backups if item.state == "good"),
        key=lambda pair: (pair[0], pair[1].name),
        reverse=True,
    )
    past = [(at, item) for at, item in good if at <= now]
    stay = protected | {item.name for _, item in past[: max(1, rule.least)]}
    stay |= _newest_of_each(past, rule.daily, datetime.date)
    stay |= _newest_of_each(past, rule.weekly, _monday)
    stay |= _newest_of_each(past, rule.monthly, lambda at: at.date().replace(day=1))
    limit = now - timedelta(days=rule.days)
    return tuple(item for at, item in past if at < limit and item.name not in stay)


def _when(backup: Backup) -> datetime:
    at = datetime.fromisoformat(backup.at)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _newest_of_each(
    newest_first: Iterable[tuple[datetime, Backup]], count: int, begin: Callable[[datetime], date]
) -> set[str]:
    """Return the names of the newest backups of the newest periods, given where each begins."""
    found: dict[date, str] = {}
    for at, item in newest_first:
        found.setdefault(begin(at), item.name)
    return set(list(found.values())[:count])


def _monday(at: datetime) -> date:
    return at.date() - timedelta(days=at.weekday())
