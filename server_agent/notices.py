"""What the agent says of its own accord: written down with the cause, sent afterwards."""

from __future__ import annotations

from psycopg2.extensions import cursor

ADD = "insert into notices (text, approval_id) values (%s, %s)"


def add(found: cursor, text: str, approval: int | None = None) -> None:
    """Write down what the Master is to be told, in the transaction of its cause.

    Args:
        found: The transaction.
        text: Plain text.
        approval: The request that it asks about; it gets the buttons to decide.
    """
    found.execute(ADD, (text, approval))
