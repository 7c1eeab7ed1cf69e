"""What the agent says of its own accord: written down with the cause, sent afterwards."""

from __future__ import annotations

from psycopg2.extensions import cursor

from server_agent import telegram
from server_agent.settings import Settings
from server_agent.store import Queue, Row
from server_agent.telegram import Button

ADD = "insert into notices (text, approval_id) values (%s, %s)"
KEEP = "update approvals set message_id = %s where id = %s"
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
update notices set state = %s, attempts = attempts + 1,
    sent_at = case when %s = 'sent' then now() end
where id = %s
""",
    postpone="""
update notices set attempts = attempts + 1, next_try_at = now() + make_interval(secs => %s)
where id = %s
""",
)


def add(found: cursor, text: str, approval: int | None = None) -> None:
    """Write down what the Master is to be told, in the transaction of its cause.

    Args:
        found: The transaction.
        text: Plain text.
        approval: The request that it asks about; it gets the buttons to decide.
    """
    found.execute(ADD, (text, approval))


def send(found: cursor, row: Row, settings: Settings) -> str:
    """Send what is in a row of the queue; return the row's next state.

    Raises:
        TelegramError: It was not accepted.
    """
    text, request, digest, is_open = row.content
    if not settings.telegram_token or not settings.master_chat_id:
        return "dropped"
    if request is None:
        telegram.send_message(settings, settings.master_chat_id, text)
        return "sent"
    if not is_open:
        return "dropped"  # nobody is to press what does nothing
    row_of_buttons = buttons(request, digest)
    number = telegram.send_message(settings, settings.master_chat_id, text, row_of_buttons)
    found.execute(KEEP, (number or None, request))
    return "sent"


def buttons(request: int, digest: str) -> tuple[Button, Button]:
    """Return the buttons that decide a request, and no other."""
    return (
        Button("✅ Approve", f"approve:{request}:{digest}"),
        Button("❌ Reject", f"reject:{request}:{digest}"),
    )
