"""Connections and transactions: reads run side by side, a write holds the lock from its first statement on.

SQLite raises "database is locked" at once when a transaction that has read turns to writing while another one writes;
no timeout helps there. So a write begins with ``BEGIN IMMEDIATE``, which waits its turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session, sessionmaker

BUSY_MILLISECONDS = 60_000  # a write waits this long for its turn; ours take milliseconds, backups may take seconds


class Database:
    """The database at a SQLAlchemy URL; an SQLite file's folder is made if it is not there."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._readers = sessionmaker(self.engine)
        self._writers = sessionmaker(self.engine.execution_options(immediate=True), expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose changes are thrown away."""
        with self._readers() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed at the end, undone by an exception."""
        with self._writers.begin() as session:
            yield session

    def check(self) -> None:
        """Raises what the driver raises if the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)  # a restarted server must not cost a request
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; _begin_sqlite says it instead
    for pragma in (
        "journal_mode=WAL",  # readers and one writer side by side
        "synchronous=NORMAL",  # safe with WAL against a killed process; a power cut may lose the last commits
        f"busy_timeout={BUSY_MILLISECONDS}",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
