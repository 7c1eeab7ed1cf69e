"""Telegram updates, and the scheduler's sign of life.

Revision: 0001
Follows: none
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "telegram_updates",
        sa.Column("update_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("state", sa.Text, nullable=False, server_default="new"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
    )
    op.create_index(
        "telegram_updates_waiting",
        "telegram_updates",
        ["update_id"],
        postgresql_where=sa.text("state = 'new'"),
    )
    op.create_table(
        "scheduler_heartbeat",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("beaten_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leader", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("scheduler_heartbeat")
    op.drop_table("telegram_updates")
