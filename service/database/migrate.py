"""Brings a database to the newest schema: when the API starts, and by ``secateur db upgrade``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from service.database.engine import Database, alone

_SCRIPTS = Path(__file__).parent / "migrations"

_ADVISORY_LOCK = 0x5EC473  # any number that nothing else on the server takes


def upgrade(database: Database, revision: str = "head") -> tuple[str | None, str | None]:
    """Runs the migrations that this database has not seen, in one transaction, alone.

    Args:
        database: new, of an earlier version, or up to date.
        revision: where to stop; the newest unless a test wants an old one.

    Returns:
        The revision before (``None``: there were no tables) and now.

    Raises:
        DatabaseAway: it does not answer.
    """
    database.check()
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))  # ConfigParser reads % as a reference
    with _reshaping(database) as connection:
        alone(connection, _ADVISORY_LOCK)
        before = MigrationContext.configure(connection).get_current_revision()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        return before, MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _reshaping(database: Database) -> Iterator[Connection]:
    """A transaction in which tables may be replaced, as SQLite changes one: references to the old one must not forbid it."""
    with database.engine.execution_options(immediate=True).connect() as connection:
        if connection.dialect.name != "sqlite":
            with connection.begin():
                yield connection
            return
        driver = connection.connection.cursor()  # what SQLAlchemy runs is in a transaction, where this pragma does nothing
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise RuntimeError("a migration broke a reference between tables")
        finally:
            driver.execute("PRAGMA foreign_keys=ON")
