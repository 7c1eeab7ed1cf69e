"""What the Master is told and asked, and his word on it.

What he is to be told is written down with its cause and sent afterwards. He is asked each request
once; his word is bound to what he was shown, counts for a limited time, and is written down before
it is shown in the message that asked.
"""

import hashlib
import logging
import re
from dataclasses import dataclass

from psycopg2.extensions import cursor

from server_agent import telegram
from server_agent.settings import Settings
from server_agent.store import Queue, Row, Store
from server_agent.telegram import TelegramError
from server_agent.updates import Press

TELL = "insert into notices (text, approval_id) values (%s, %s)"
QUEUE = Queue(
    "notice",
    # The oldest one alone: while it waits for its next try, the younger ones wait behind it.
    next="""
select n.id, n.attempts, n.text, a.id, a.digest, a.state = 'open' and a.expires_at > now()
from notices n left join approvals a on a.id = n.approval_id
where n.id = (select min(id) from notices where state = 'new')
    and n.state = 'new' and n.next_try_at <= now()
for update of n skip locked
""",
    settle="""
update notices set state = %(state)s, attempts = attempts + 1,
    next_try_at = now() + make_interval(secs => %(pause)s),
    sent_at = case when %(state)s = 'sent' then now() end
where id = %(id)s
""",
)
ASK = """
insert into approvals (kind, subject, digest, text, expires_at)
values (%s, %s, %s, %s, now() + make_interval(secs => %s))
on conflict (kind, subject) where state in ('open', 'approved', 'running') do nothing returning id
"""
EXPIRE = """
update approvals set state = 'expired', ended_at = now() where id in (
    select id from approvals where state = 'open' and expires_at <= clock_timestamp()
    for update skip locked)
"""
# By the clock, not by the transaction's beginning: the row may have been waited for.
DECIDE = """
update approvals set state = %(verdict)s, decided_at = clock_timestamp(), decided_by = %(update)s
where id = %(id)s and digest = coalesce(%(digest)s, digest)
    and state = 'open' and expires_at > clock_timestamp()
"""
LOOK = """
select state, coalesce(decided_by = %(update)s, false), text, message_id
from approvals where id = %(id)s and digest = coalesce(%(digest)s, digest)
"""
MESSAGE = "update approvals set message_id = %s where id = %s"

BUTTON = re.compile(r"(approve|reject):([0-9]{1,18}):([0-9a-f]{16})")
VERDICTS = {"approve": "approved", "reject": "rejected"}

log = logging.getLogger("server_agent.reactive")


@dataclass(frozen=True)
class Word:
    """What the Master said to a request."""

    verdict: str
    id: int
    update: int  # the update that says so; tried again, it decides nothing a second time
    digest: str | None = None  # what the button says the request is; None: he named its number
    message: int = 0  # the number of the message with that button; 0: unknown


def tell(found: cursor, text: str, request: int | None = None) -> None:
    """Write down what he is to be told, with its cause; a request gets the buttons to decide."""
    found.execute(TELL, (text, request))


def ask(found: cursor, kind: str, subject: str, text: str, seconds: float) -> int | None:
    """Ask him, for so many seconds; return the request's number.

    Of a kind and subject one is open at a time: then nothing is asked, and None returned.
    """
    expire(found)
    digest = hashlib.sha256(f"{kind}\0{subject}\0{text}".encode()).hexdigest()[:16]
    found.execute(ASK, (kind, subject, digest, text, seconds))
    row = found.fetchone()
    if row is None:
        return None
    tell(found, f"{text}\n\nRequest {row[0]}: /approve {row[0]} or /reject {row[0]}", row[0])
    return int(row[0])


def expire(found: cursor) -> None:
    """Close the requests whose time is over."""
    found.execute(EXPIRE)


def send(found: cursor, row: Row, settings: Settings) -> str:
    """Send what is in a row of the queue; return the row's next state."""
    text, request, digest, is_open = row.content
    if request and not is_open:
        return "dropped"  # nobody is to press what does nothing
    verbs = {"✅ Approve": "approve", "❌ Reject": "reject"} if request else {}
    buttons = {name: f"{verb}:{request}:{digest}" for name, verb in verbs.items()}
    number = telegram.send_message(settings, settings.master_chat_id, text, buttons)
    found.execute(MESSAGE, (number or None, request))
    return "sent"


def press(settings: Settings, store: Store, pressed: Press, update: int) -> str:
    """Let a button decide what it is about; return what to tell him, as `hear` does."""
    found = BUTTON.fullmatch(pressed.data)
    if found is None:
        return "I do not know this button."
    word = Word(VERDICTS[found[1]], int(found[2]), update, found[3], pressed.message.message_id)
    return hear(settings, store, word)


def hear(settings: Settings, store: Store, word: Word) -> str:
    """Let his word decide a request; return what to tell him.

    The decision is committed before anything is shown, and stands whatever becomes of that.
    """
    with store.transaction() as found:
        found.execute(DECIDE, vars(word))
        expire(found)
        found.execute(LOOK, vars(word))
        row = found.fetchone()
    if row is None:
        log.warning("update %s: there is no request %s like that", word.update, word.id)
        return f"There is no such request: {word.id}."
    state, decided, text, message = row
    if decided:
        state = word.verdict  # it may have been carried out meanwhile
    log.info("update %s: request %s is %s", word.update, word.id, state)
    place = word.message or message
    if place and (decided or state in ("expired", "withdrawn")):
        what = f"{state.capitalize()} by the Master" if decided else state.capitalize()
        try:
            telegram.edit_message(settings, settings.master_chat_id, place, f"{text}\n\n{what}.")
        except TelegramError as error:
            # Final: the message is gone, or reads like this already.
            if not error.final:
                raise
            log.warning("message %s stays as it is: %s", place, error.why)
    return f"Request {word.id} is {'' if decided else 'open no more: '}{state}."
