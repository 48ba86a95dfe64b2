"""Brings a database to the newest schema: when the API starts, and by ``secateur db upgrade``."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from service.database.engine import Database

_SCRIPTS = Path(__file__).parent / "migrations"

_ADVISORY_LOCK = 0x5EC473  # any number that nothing else on the server takes


def upgrade(database: Database, revision: str = "head") -> tuple[str | None, str | None]:
    """Runs the migrations that this database has not seen, in one transaction, alone.

    Args:
        database: new, of an earlier version, or up to date.
        revision: where to stop; the newest unless a test wants an old one.

    Returns:
        The revision before (``None``: there were no tables) and now.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))  # ConfigParser reads % as a reference
    with database.engine.execution_options(immediate=True).begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's write lock is taken already
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        before = MigrationContext.configure(connection).get_current_revision()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        return before, MigrationContext.configure(connection).get_current_revision()
