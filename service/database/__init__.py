"""The truth: models, data sets, jobs, their trials, checkpoints and events in SQLite or PostgreSQL."""

from service.database.engine import Database, DatabaseAway, alone, now

__all__ = ["Database", "DatabaseAway", "alone", "now"]
