"""Brings a database to the newest schema; run when the API starts."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from service.database.engine import Database

_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> None:
    """Runs the migrations that this database has not seen, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))  # ConfigParser reads % as a reference
    with database.engine.execution_options(immediate=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
