"""Connections and transactions: reads run side by side, a write holds the lock from its first statement on.

SQLite raises "database is locked" at once when a transaction that has read turns to writing while another one writes;
no timeout helps there. So a write begins with ``BEGIN IMMEDIATE``, which waits its turn.

What belongs to one user is found by nobody else: ``Database.of`` is the database as a user sees it, and each of its queries for
rows that have an owner asks for that user's alone. What hangs on such a row (a job's trials) is reached through it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, Session, sessionmaker, with_loader_criteria
from sqlalchemy.pool import ConnectionPoolEntry

from service.database.tables import ADMIN, Owned
from service.problems import StorageFull, Unavailable

BUSY_MILLISECONDS = 60_000  # a write waits this long for its turn; ours take milliseconds, backups may take seconds
CONNECT_SECONDS = 5  # to a PostgreSQL that may be gone; a living one answers in milliseconds
POOL_SECONDS = 10  # for a free connection of this process; each is held for milliseconds

READING_THREADS = 4
"""That read for an event loop: enough to wait for a server, and few, since one at a time runs Python and each keeps memory."""

Found = TypeVar("Found")

_SQLITE_AWAY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_SQLITE_FULL = sqlite3.SQLITE_FULL

# SQLSTATE classes: connection, resources, operator intervention, system error, rollback; and a full disk among the second.
_POSTGRES_AWAY = ("08", "53", "57", "58", "40")
_POSTGRES_FULL = "53100"


class DatabaseAway(Unavailable):
    """The database does not answer, or could not finish this transaction; the same one may well succeed in a moment.

    Whether it was committed is not known where the connection was lost at its end.
    """


class _UserSession(Session):
    """A session whose ``info`` names the ``owner`` of what it adds and, in ``sees``, the one of what it finds (None: all)."""


class Database:
    """The database at a SQLAlchemy URL; an SQLite file's folder is made if it is not there.

    Attributes:
        owner: whose the rows are that it adds.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.owner = ADMIN
        self._sees: str | None = None
        self._threads = ThreadPoolExecutor(READING_THREADS, "reading")
        self._readers = sessionmaker(self.engine, class_=_UserSession)
        writers = self.engine.execution_options(immediate=True)
        self._writers = sessionmaker(writers, class_=_UserSession, expire_on_commit=False)

    def of(self, owner: str, sees_all: bool = False) -> Self:
        """The same database as a user sees it; an administrator sees what all users have."""
        view = copy(self)
        view.owner, view._sees = owner, None if sees_all else owner
        return view

    def shows(self, owner: str) -> bool:
        """Whether this user finds that one's rows: for a query that is not the session's."""
        return self._sees is None or self._sees == owner

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose changes are thrown away; raises ``DatabaseAway``."""
        with _in_a_sentence(), self._readers(info=self._info) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed at the end, undone by an exception; raises ``DatabaseAway`` and ``StorageFull``."""
        with _in_a_sentence(), self._writers(info=self._info) as session, session.begin():
            yield session

    async def aside(self, read: Callable[[], Found]) -> Found:
        """What a short read finds that is made often, beside the event loop; raises as it does.

        Sixteen of Starlette's threads took twice the processor time for it: they take each other's turns, and more of them than
        the pool has connections open a new one each time.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    def check(self) -> None:
        """Raises ``DatabaseAway`` if the database does not answer."""
        with _in_a_sentence(), self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Closes all connections; one that a thread still works with, as soon as it is given back."""
        self._threads.shutdown()
        event.listen(self.engine, "checkin", _close_returned)  # the pool that is disposed of would keep it open
        self.engine.dispose()

    @property
    def _info(self) -> dict[str, Any]:
        return {"owner": self.owner, "sees": self._sees}


@event.listens_for(_UserSession, "do_orm_execute")
def _find_own_rows(state: ORMExecuteState) -> None:
    owner = state.session.info["sees"]
    if owner is not None and state.is_select:
        state.statement = state.statement.options(_own(owner))


@lru_cache(maxsize=1024)
def _own(owner: str) -> LoaderCriteriaOption:
    """Made once for a user: it takes as long as a query does."""
    return with_loader_criteria(Owned, lambda table: table.owner == owner, include_aliases=True)


@event.listens_for(_UserSession, "before_flush")
def _own_new_rows(session: Session, *_: object) -> None:
    for row in session.new:
        if isinstance(row, Owned):
            row.owner = row.owner or session.info["owner"]


def alone(connection: Connection, lock: int) -> None:
    """Until the transaction ends, no other one gets beyond its call with the same lock; a writer to SQLite is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


def now(session: Session) -> datetime:
    """The time on the database's clock, which all processes share; an SQLite file has that of its machine."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = session.scalars(select(func.clock_timestamp())).one()
    return moment.astimezone(UTC)


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Turns what a database raises when it is away or full into errors of ours; bugs stay what they are."""
    try:
        yield
    except NoConnectionFree as error:
        raise DatabaseAway("All connections to the database are in use; try again in a moment.") from error
    except DBAPIError as error:
        if _full(error.orig):
            raise StorageFull("The database's disk is full; free some space and try again.") from error
        if error.connection_invalidated or _away(error.orig):
            raise DatabaseAway("The database does not answer; try again in a moment.") from error
        raise


def _full(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return _primary_code(error) == _SQLITE_FULL
    return getattr(error, "sqlstate", None) == _POSTGRES_FULL


def _away(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return _primary_code(error) in _SQLITE_AWAY
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_POSTGRES_AWAY)
    return type(error).__name__ in ("OperationalError", "InterfaceError")  # psycopg's: no word from the server at all


def _primary_code(error: sqlite3.Error) -> int | None:
    """Of the extended code, in which the low byte is the kind of error; misuse of the module has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        # A restarted server must not cost a request, and one that hangs not the whole process.
        patience = {"connect_timeout": CONNECT_SECONDS}
        return create_engine(url, pool_pre_ping=True, pool_timeout=POOL_SECONDS, connect_args=patience)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; _begin_sqlite says it instead
    for pragma in (
        f"busy_timeout={BUSY_MILLISECONDS}",  # first: the next one may have to wait
        "journal_mode=WAL",  # readers and one writer side by side
        "synchronous=NORMAL",  # safe with WAL against a killed process; a power cut may lose the last commits
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _close_returned(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
