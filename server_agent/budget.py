"""What models may cost: reserved before a call, settled after it, all in the database.

A call that was killed in between stays reserved, which counts just like what is spent.
Rows are locked in the order of their names (the month before its days), so nobody waits in a ring.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import psycopg2
from psycopg2.extensions import cursor

from server_agent import master
from server_agent.settings import Settings
from server_agent.store import Store

STATUSES = ("ok", "warned", "spent")
WARN = 0.8  # the share of a budget at which the Master is told

CURRENT = """
select p.name, coalesce(t.spent, 0), coalesce(t.reserved, 0)
from (values (to_char(now() at time zone 'utc', 'YYYY-MM-DD')),
    (to_char(now() at time zone 'utc', 'YYYY-MM'))) p (name)
left join token_periods t on t.period = p.name order by p.name desc
"""
BEGIN = "insert into token_periods (period) values (%s) on conflict (period) do nothing"
RESERVE = """
update token_periods set reserved = reserved + %(tokens)s
where period = %(name)s and spent + reserved + %(tokens)s <= %(limit)s
"""
CALL = """
insert into token_calls (day, month, model, purpose, reserved) values (%s, %s, %s, %s, %s)
returning id
"""
SETTLE = """
update token_calls set prompt_tokens = %s, completion_tokens = %s, settled_at = now()
where id = %s and settled_at is null returning reserved, day, month
"""
SPEND = """
update token_periods set reserved = reserved - %s, spent = spent + %s
where period = %s returning spent, reserved, warned_at is not null
"""
WARNED = "update token_periods set warned_at = now() where period = %s"


@dataclass(frozen=True)
class Period:
    """A day or a month, and the tokens of it."""

    name: str  # `YYYY-MM-DD` or `YYYY-MM`, UTC
    limit: int
    spent: int = 0
    reserved: int = 0  # what calls under way may spend

    @property
    def renewed(self) -> str:
        """Return the day on which the next one begins, at midnight UTC."""
        if len(self.name) == len("YYYY-MM-DD"):
            return (date.fromisoformat(self.name) + timedelta(days=1)).isoformat()
        begin = date.fromisoformat(f"{self.name}-01")
        return (begin + timedelta(days=31)).replace(day=1).isoformat()

    @property
    def status(self) -> str:
        """Return `ok`, from 80 per cent on `warned`, and `spent` when nothing is left."""
        if self.spent >= self.limit:
            return "spent"
        return "warned" if self.spent >= WARN * self.limit else "ok"


@dataclass(eq=False)  # not frozen: a context manager that it passes through writes to it
class BudgetSpent(Exception):  # noqa: N818 - it says what it is
    """A call was refused: it may cost more than is left."""

    period: Period
    tokens: int

    def __str__(self) -> str:
        return f"the token budget is used up, the call may take {self.tokens}; {line(self.period)}"


def reserve(found: cursor, settings: Settings, purpose: str, tokens: int) -> int:
    """Keep the most that a call of the model can take; return its number, which settles it.

    Raises:
        BudgetSpent: The day or the month cannot hold it.
    """
    day, month = current(found, settings)
    for period in (month, day):
        found.execute(BEGIN, (period.name,))
        found.execute(RESERVE, {**vars(period), "tokens": tokens})
        if not found.rowcount:
            raise BudgetSpent(period, tokens)
    found.execute(CALL, (day.name, month.name, settings.model_name, purpose, tokens))
    return int((found.fetchone() or (0,))[0])


def settle(found: cursor, settings: Settings, call: int, prompt: int, completion: int = 0) -> None:
    """Replace what a call reserved by what it took, in its own day and month; once."""
    found.execute(SETTLE, (prompt, completion, call))
    row = found.fetchone()
    if row is None:
        return
    reserved, day, month = row
    for name, limit in ((month, settings.tokens_per_month), (day, settings.tokens_per_day)):
        found.execute(SPEND, (reserved, prompt + completion, name))
        spent, kept, warned = found.fetchone() or (0, 0, True)
        period = Period(name, limit, spent, kept)
        if period.status != "ok" and not warned:
            found.execute(WARNED, (name,))
            master.tell(found, f"Over {WARN:.0%} of a token budget is spent.\n{line(period)}")


def current(found: cursor, settings: Settings) -> tuple[Period, Period]:
    """Return this day and this month by the database's clock, with what was spent in them."""
    found.execute(CURRENT)
    (day, *of_day), (month, *of_month) = found.fetchall()
    return (
        Period(day, settings.tokens_per_day, *of_day),
        Period(month, settings.tokens_per_month, *of_month),
    )


def told(store: Store, settings: Settings) -> dict[str, Any]:
    """Return what /health tells of this day and this month; `unknown` when nobody can tell."""
    try:
        with store.transaction() as found:
            day, month = current(found, settings)
    except psycopg2.Error:
        return {"status": "unknown"}
    return {
        "status": max(day.status, month.status, key=STATUSES.index),
        "day": {**vars(day), "renewed": day.renewed},
        "month": {**vars(month), "renewed": month.renewed},
    }


def line(period: Period) -> str:
    """Return a period in words."""
    return (
        f"{period.name}: {period.spent} of {period.limit} tokens spent, {period.reserved} "
        f"reserved; renewed on {period.renewed} at 00:00 UTC"
    )
