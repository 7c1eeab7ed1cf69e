"""The leader's cycle: looks at the server, asks the Master, does what he approved, reports.

All of it goes through the leader's own connection: who has lost the lead has lost that too. That
an action begins is written down before it does, so it is done at most once: one that nobody saw
end is not repeated, only told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from psycopg2.extensions import connection, cursor

from server_agent import actions, approvals, budget, notices, server
from server_agent.actions import ActionFailed
from server_agent.server import Finding
from server_agent.settings import Settings

KINDS = [server.RESTART, server.PRUNE]
ANSWER = 3600.0  # seconds that the Master has
SUBJECT = "images without a name, build cache"
QUESTIONS = {
    server.RESTART: "Shall I restart it?",
    server.PRUNE: "Shall I remove images without a name and the build cache?",
}

# An action that did no good is not proposed again and again, one that the Master refused neither.
TRIED = """
select 1 from approvals where kind = %s and subject = %s
and coalesce(ended_at, decided_at, expires_at) > now() -
    case state when 'done' then interval '1 hour' else interval '6 hours' end
"""
TAKE = """
update approvals set state = 'running' where id = (
    select id from approvals
    where state = 'approved' and kind = any(%s) and expires_at > now()
    order by id limit 1 for update skip locked)
returning id, kind, subject
"""
END = "update approvals set state = %s, ended_at = now() where id = %s and state = 'running'"
LEFT = """
update approvals set state = 'unknown', ended_at = now()
where state = 'running' and kind = any(%s) returning id, text
"""
EXPIRE = """
with late as (
    select id, state from approvals
    where kind = any(%s) and state in ('open', 'approved') and expires_at <= now() for update)
update approvals set state = 'expired', ended_at = now() from late where approvals.id = late.id
returning approvals.id, late.state, approvals.text
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

log = logging.getLogger("server_agent.proactive")


def take_over(link: connection) -> None:
    """Tell what a leader before began and did not live to end."""
    with link, link.cursor() as found:
        found.execute(LEFT, (KINDS,))
        for number, text in found.fetchall():
            log.warning("request %s: nobody saw it end", number)
            notices.add(
                found,
                f"Request {number}: I was stopped while I was at it, and do not know whether it "
                f"was done. I do not do it again.\n\n{text}",
            )


def act(link: connection, settings: Settings) -> bool:
    """Do the next thing that was approved; tell whether there was one."""
    with link, link.cursor() as found:
        found.execute(TAKE, (KINDS,))
        row = found.fetchone()
    if row is None:
        return False
    number, kind, subject = row
    log.info("request %s: %s %s begins", number, kind, subject)
    state, said = _outcome(settings, kind, subject)
    log.info("request %s: %s, %s", number, state, said)
    with link, link.cursor() as found:
        found.execute(END, (state, number))
        notices.add(found, f"Request {number}: {said}")
    return True


def _outcome(settings: Settings, kind: str, subject: str) -> tuple[str, str]:
    try:
        return "done", actions.carry_out(settings, kind, subject)
    except ActionFailed as error:
        if error.unknown:
            return "unknown", f"I do not know whether it was done ({error.why})."
        return "failed", f"it was not done ({error.why})."


def look(link: connection, settings: Settings, before: frozenset[str]) -> frozenset[str]:
    """Look at the server; ask or tell the Master what he does not know yet.

    Args:
        link: The leader's connection.
        settings: Where to look.
        before: The topics that the look before found: what passes by itself is not worth a word.

    Returns:
        The topics that were found.
    """
    seen = server.findings(settings, _failed(settings), datetime.now(UTC))
    lasting = [item for item in seen if item.topic in before]
    with link, link.cursor() as found:
        budget.settle_forgotten(found, settings)
        _expire(found)
        for item in lasting:
            if item.action:
                _ask(found, item)
        found.execute(GONE, ([item.topic for item in seen],))
        for item in lasting:
            if not item.action:
                found.execute(TELL, {"text": item.text, "topic": item.topic})
    return frozenset(item.topic for item in seen)


def _failed(settings: Settings) -> Mapping[str, str]:
    try:
        return actions.failed_containers(settings)
    except ActionFailed as error:
        log.warning("the engine cannot be asked: %s", error.why)
        return {}


def _expire(found: cursor) -> None:
    found.execute(EXPIRE, (KINDS,))
    for number, state, text in found.fetchall():
        log.info("request %s has expired", number)
        if state == "approved":
            said = "approved, but too late for me to act in time; nothing was done."
            notices.add(found, f"Request {number}: {said}\n\n{text}")


def _ask(found: cursor, item: Finding) -> None:
    subject = item.topic if item.action == server.RESTART else SUBJECT
    found.execute(TRIED, (item.action, subject))
    if found.fetchone() is not None:
        return
    text = f"{item.text} {QUESTIONS[item.action]}"
    if approvals.ask(found, item.action, subject, text, ANSWER) is not None:
        log.info("asked: %s", text)
