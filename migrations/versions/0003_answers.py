"""The answer to an update, made once however often it is sent.

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("telegram_updates", sa.Column("answer", sa.Text))


def downgrade() -> None:
    op.drop_column("telegram_updates", "answer")
