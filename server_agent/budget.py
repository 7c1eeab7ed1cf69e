"""What models may cost: reserved before a call, settled after it, all in the database.

What is reserved counts just like what is spent, and is spent when a call was killed in between.
Rows are locked in the order of their names (the month before its days), so nobody waits in a ring.
"""

import logging
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import cursor

from server_agent import master
from server_agent.settings import Settings

STATUSES = ("ok", "warned", "spent")
WARN = 0.8  # the share of a budget at which the Master is told

CURRENT = """
select p.name, coalesce(t.spent, 0), coalesce(t.reserved, 0)
from (values (to_char(now() at time zone 'utc', 'YYYY-MM-DD')),
    (to_char(now() at time zone 'utc', 'YYYY-MM'))) p (name)
left join token_periods t on t.period = p.name order by p.name desc
"""
RESERVE = """
insert into token_periods as p (period, reserved)
select %(name)s, %(tokens)s where %(tokens)s <= %(limit)s
on conflict (period) do update set reserved = p.reserved + excluded.reserved
where p.spent + p.reserved + excluded.reserved <= %(limit)s
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
# No call takes that long.
OLD = """
select id, reserved from token_calls
where settled_at is null and called_at < now() - interval '5 minutes'
order by id limit 100 for update skip locked
"""
WARNED = "update token_periods set warned_at = now() where period = %s"

log = logging.getLogger("server_agent.proactive.budget")


@dataclass(frozen=True)
class Period:
    """A day or a month, and the tokens of it."""

    name: str  # `YYYY-MM-DD` or `YYYY-MM`, UTC
    limit: int
    spent: int = 0
    reserved: int = 0  # what calls under way may spend

    @property
    def status(self) -> str:
        """Return `ok`, from 80 per cent on `warned`, and `spent` when nothing is left."""
        taken = self.spent + self.reserved
        if taken >= self.limit:
            return "spent"
        return "warned" if taken >= WARN * self.limit else "ok"


class BudgetSpent(Exception):  # noqa: N818 - it says what it is
    """A call was refused: it may cost more than is left."""


def reserve(found: cursor, settings: Settings, purpose: str, tokens: int) -> int:
    """Keep the most that a call of the model can take; return its number, which settles it.

    Raises:
        BudgetSpent: The day or the month cannot hold it.
    """
    day, month = current(found, settings)
    for period in (month, day):
        found.execute(RESERVE, {**vars(period), "tokens": tokens})
        if not found.rowcount:
            why = f"the token budget is used up, the call may take {tokens}; {line(period)}"
            raise BudgetSpent(why)
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
            master.tell(
                found, f"Over {WARN:.0%} of a token budget is spent or reserved.\n{line(period)}"
            )


def settle_old(found: cursor, settings: Settings) -> None:
    """Count as spent what calls have reserved that nobody will settle any more."""
    found.execute(OLD)
    for call, reserved in found.fetchall():
        log.warning("call %s has not ended, its %s tokens count as spent", call, reserved)
        settle(found, settings, call, reserved)


def current(found: cursor, settings: Settings) -> tuple[Period, Period]:
    """Return this day and this month by the database's clock, with what was spent in them."""
    found.execute(CURRENT)
    (day, *of_day), (month, *of_month) = found.fetchall()
    return (
        Period(day, settings.tokens_per_day, *of_day),
        Period(month, settings.tokens_per_month, *of_month),
    )


def told(day: Period, month: Period) -> dict[str, Any]:
    """Return what /health tells of a day and its month."""
    status = max(day.status, month.status, key=STATUSES.index)
    return {"status": status, "day": vars(day), "month": vars(month)}


def line(period: Period) -> str:
    """Return a period in words."""
    spent = f"{period.spent} of {period.limit} tokens spent, {period.reserved} reserved"
    return f"{period.name}: {spent}"
