"""Which backups may go."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from deploy.postgres.backup import Backup


def to_delete(
    backups: Iterable[Backup],
    *,
    now: datetime,
    keep_days: int,
    keep_min: int,
    protected: frozenset[str],
) -> tuple[Backup, ...]:
    """Return the backups that may go.

    Only good ones count, so that bad ones never push them out. The newest good one stays,
    those that are named stay, and never fewer than `keep_min` good ones are left.

    Args:
        backups: All there are.
        now: UTC.
        keep_days: Days that a backup is kept.
        keep_min: Good backups that stay, however old.
        protected: Names that stay.
    """
    good = sorted(
        (item for item in backups if item.state == "good"), key=lambda item: item.at, reverse=True
    )
    limit = now - timedelta(days=keep_days)
    return tuple(
        item
        for item in good[max(1, keep_min) :]
        if datetime.fromisoformat(item.at) < limit and item.name not in protected
    )
