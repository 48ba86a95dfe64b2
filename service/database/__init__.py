"""The truth: models, data sets, jobs, their trials, checkpoints and events in SQLite or PostgreSQL."""

from service.database.engine import Database, DatabaseAway, now

__all__ = ["Database", "DatabaseAway", "now"]
