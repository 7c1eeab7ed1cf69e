"""Alembic's way to the database: DATABASE_URL of the environment, never a file."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

LOCK_TIMEOUT = "5s"  # waiting longer for a lock would queue the live release behind us


def run() -> None:
    """Apply the migrations, each in its transaction."""
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg2")
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        connection.execute(text(f"set lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
