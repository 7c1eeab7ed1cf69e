"""What is true on a host, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploy import status

AGO = (datetime.now(UTC) - timedelta(days=5)).isoformat()


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (None, "  backup    none"),
        ({"name": "b.sql.gz", "at": AGO, "state": "good"}, "  backup    b.sql.gz, 5 days old"),
        (
            {"name": "b.sql.gz", "at": AGO, "state": "damaged"},
            "  backup    b.sql.gz, 5 days old, DAMAGED",
        ),
        (
            {"name": "b.sql.gz", "at": "", "state": "damaged"},
            "  backup    b.sql.gz, of unknown age, DAMAGED",
        ),
    ],
)
def test_the_newest_backup_is_told_with_its_age_and_what_is_wrong(
    saved: dict[str, str] | None, says: str
) -> None:
    found = {"host": "vps", "url": "http://vps", "healthy": True, "answer": "200"}
    nothing = {"release": None, "rollback": None, "lock": None}
    assert says in status.as_text({**found, **nothing, "backup": saved}).splitlines()
