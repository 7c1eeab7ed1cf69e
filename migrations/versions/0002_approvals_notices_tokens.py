"""What the Master is asked and told, and the tokens that are spent.

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPEN = sa.text("state in ('open', 'approved', 'running')")


def upgrade() -> None:
    now = sa.text("now()")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "approvals",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="open"),
        sa.Column("created_at", time, nullable=False, server_default=now),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("decided_at", time),
        sa.Column("decided_by", sa.BigInteger),  # the update that did
        sa.Column("ended_at", time),
        sa.Column("message_id", sa.BigInteger),
    )
    op.create_index(
        "approvals_one_at_a_time",
        "approvals",
        ["kind", "subject"],
        unique=True,
        postgresql_where=OPEN,
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("approval_id", sa.BigInteger, sa.ForeignKey("approvals.id")),
        sa.Column("state", sa.Text, nullable=False, server_default="new"),
        sa.Column("created_at", time, nullable=False, server_default=now),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_try_at", time, nullable=False, server_default=now),
        sa.Column("sent_at", time),
        sa.Column("topic", sa.Text),
        sa.Column("gone_at", time),
    )
    op.create_index("notices_waiting", "notices", ["id"], postgresql_where=sa.text("state = 'new'"))
    op.create_table(
        "token_periods",
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("spent", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("reserved", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("warned_at", time),
    )
    op.create_table(
        "token_calls",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("called_at", time, nullable=False, server_default=now),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("month", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("settled_at", time),
    )
    op.create_index(
        "token_calls_under_way",
        "token_calls",
        ["called_at"],
        postgresql_where=sa.text("settled_at is null"),
    )


def downgrade() -> None:
    op.drop_table("token_calls")
    op.drop_table("token_periods")
    op.drop_table("notices")
    op.drop_table("approvals")
