"""PostgreSQL: how it is reached, backed up and restored."""
