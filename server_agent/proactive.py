"""The leader's cycle: looks at the server, asks the Master, does what he approved, reports.

Of all releases that run, one leads. All it does goes through the leader's own connection: who has
lost the lead has lost that too. That an action begins is written down before it does, so it is
done at most once: one that nobody saw end is not repeated, only told.
"""

import logging
import time
from dataclasses import dataclass

from psycopg2.extensions import cursor

from server_agent import budget, master, server
from server_agent.server import Fact
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.web import Failed

LEADER = 7_431_001  # the advisory lock of the one scheduler
TICK = 5.0  # seconds between two signs of life
STANDBY = 1.0  # seconds between two tries to take the lead
LATE = 300.0  # seconds that a step may take: an action is carried out in one
ANSWER = 3600.0  # seconds that the Master has
SUBJECT = "images without a name, build cache"
QUESTIONS = {
    server.DEPLOY: "Shall I have it deployed?",
    server.RESTART: "Shall I restart it?",
    server.PRUNE: "Shall I remove images without a name and the build cache?",
}
ENDS = {
    "unknown": "I was stopped while I was at it, and do not know whether it was done. "
    "I do not do it again.",
    "expired": "approved, but too late for me to act in time; nothing was done.",
}

BEAT = """
insert into scheduler_heartbeat (id, beaten_at, leader) values (1, now(), %s)
on conflict (id) do update set beaten_at = excluded.beaten_at, leader = excluded.leader
"""
# An action that did no good is not proposed again and again, one that the Master refused neither.
# A question that he was never sent is not one that he left alone.
TRIED = """
select id, state, to_char(until at time zone 'utc', 'YYYY-MM-DD HH24:MI')
from (
    select *, coalesce(ended_at, decided_at, expires_at) +
        case state when 'done' then interval '1 hour' else interval '6 hours' end as until
    from approvals where kind = %s and subject = %s
) tried
where until > now() and not (state = 'expired' and decided_at is null and message_id is null)
order by id desc limit 1
"""
TAKE = """
update approvals set state = 'running' where id = (
    select id from approvals where state = 'approved' and kind = any(%s) and expires_at > now()
    order by id limit 1 for update skip locked)
returning id, kind, subject
"""
END = "update approvals set state = %s, ended_at = now() where id = %s and state = 'running'"
# Whoever looks for them leads and is at nothing: what is running was left by another.
CLOSE = """
update approvals set state = case state when 'running' then 'unknown' else 'expired' end,
    ended_at = now()
where kind = any(%s) and (state = 'running' or state = 'approved' and expires_at <= now())
returning id, text, state
"""
GONE = """
update notices set gone_at = now()
where topic is not null and gone_at is null and not topic = any(%s)
"""
TELL = """
insert into notices (text, topic) select %(text)s, %(topic)s where not exists (
    select from notices where topic = %(topic)s
    and (gone_at is null or gone_at > now() - interval '6 hours'))
"""

NO_TOPIC = "(topic is null or gone_at is not null)"
CLOSED = "state not in ('open', 'approved', 'running')"
UNTOLD = "not exists (select from notices where approval_id = old.id)"
# What nobody asks for any more: since when, which of it. In steps: a statement has two seconds.
OLD = (
    ("telegram_updates", "update_id", "received_at", "state <> 'new'"),
    ("token_calls", "id", "settled_at", "true"),
    ("notices", "id", "coalesce(gone_at, created_at)", f"state <> 'new' and {NO_TOPIC}"),
    ("approvals", "id", "coalesce(ended_at, decided_at, expires_at)", f"{CLOSED} and {UNTOLD}"),
)
FORGET = """
delete from {0} where {1} in (
    select {1} from {0} old where {2} < now() - interval '30 days' and {3}
    order by {1} limit 500 for update skip locked)
"""

log = logging.getLogger("server_agent.proactive")


@dataclass
class Scheduler:
    """Leads while it holds an advisory lock, which goes with its thread's connection."""

    settings: Settings
    store: Store
    leads: bool = False
    look_at: float = 0.0
    seen: frozenset[str] = frozenset()

    def step(self) -> float:
        """Take the lead where it is free, and while leading do one round of the cycle."""
        try:
            with self.store.transaction() as found:
                self.leads = lead(found, self.settings)
            if not self.leads:
                return STANDBY
            if act(self.store, self.settings):
                return 0.0
            if time.monotonic() >= self.look_at:
                self.look_at = time.monotonic() + self.settings.look_seconds
                self.seen = look(self.store, self.settings, self.seen)
                tidy(self.store, self.settings)
        except Exception:  # whatever it is, it may have cost the connection
            self.leads = False
            raise
        return min(TICK, self.settings.look_seconds)


def lead(found: cursor, settings: Settings) -> bool:
    """Tell whether the lead is ours; if so give a sign of life, and end what is not to be done."""
    # Who leads takes the lock once more, which tells that it is the same connection still.
    found.execute("select pg_try_advisory_lock(%s)", (LEADER,))
    if found.fetchone() != (True,):
        return False
    found.execute(BEAT, (settings.vcs_ref,))
    master.expire(found)
    found.execute(CLOSE, (list(QUESTIONS),))
    for number, text, state in found.fetchall():
        log.warning("request %s: %s", number, ENDS[state])
        master.tell(found, f"Request {number}: {ENDS[state]}\n\n{text}")
    return True


def act(store: Store, settings: Settings) -> bool:
    """Do the next thing that was approved; tell whether there was one."""
    with store.transaction() as found:
        found.execute(TAKE, (list(QUESTIONS),))
        row = found.fetchone()
    if row is None:
        return False
    number, kind, subject = row
    log.info("request %s: %s %s begins", number, kind, subject)
    state, said = _outcome(settings, kind, subject)
    log.info("request %s: %s, %s", number, state, said)
    with store.transaction() as found:
        found.execute(END, (state, number))
        master.tell(found, f"Request {number}: {said}")
    return True


def _outcome(settings: Settings, kind: str, subject: str) -> tuple[str, str]:
    try:
        if kind == server.DEPLOY:
            return "done", server.deploy(settings, subject)
        if kind == server.RESTART:
            return "done", server.restart(settings, subject)
        return "done", server.prune(settings)
    except Failed as error:
        if error.sent:
            return "unknown", f"I do not know whether it was done ({error.why})."
        return "failed", f"it was not done ({error.why})."


def look(store: Store, settings: Settings, before: frozenset[str]) -> frozenset[str]:
    """Look at the server; ask or tell the Master what he does not know yet; return the topics.

    Only what the look before has found too: what passes by itself is not worth a word.
    """
    seen = server.findings(settings)
    topics = frozenset(fact.wrong for fact in seen.values())
    with store.transaction() as found:
        found.execute(GONE, (list(topics),))
        for name, fact in seen.items():
            if fact.wrong in before:
                _report(found, name, fact)
    return topics


def _report(found: cursor, name: str, fact: Fact) -> None:
    text, topic = f"{fact.wrong}: {fact}.", fact.wrong
    if fact.action:
        subject = name if fact.action == server.RESTART else SUBJECT
        found.execute(TRIED, (fact.action, subject))
        row = found.fetchone()
        if row is None:
            question = f"{text} {QUESTIONS[fact.action]}"
            if master.ask(found, fact.action, subject, question, ANSWER):
                log.info("asked: %s", question)
            return
        number, state, until = row
        if state in ("open", "approved", "running"):
            return
        text += f" Request {number} about that is {state}, I ask again at {until} UTC."
        topic = f"request {number}"  # gone at the next look, but not told again for as long
    found.execute(TELL, {"text": text, "topic": topic})


def tidy(store: Store, settings: Settings) -> None:
    """Settle what was left unsettled, and forget what is old."""
    with store.transaction() as found:
        budget.settle_old(found, settings)
    for which in OLD:
        with store.transaction() as found:
            found.execute(FORGET.format(*which))
