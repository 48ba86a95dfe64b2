"""A real PostgreSQL for tests: made by ``initdb`` in a temporary folder, reached by a Unix socket, gone at the end."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

INSTALL = "needs a PostgreSQL server: apt-get install postgresql, with initdb and postgres on the path"
_OWNER = "secateur"


class Postgres:
    """A server of one's own; ``start`` it first.

    Args:
        settings: of ``postgresql.conf``, by name.
    """

    def __init__(self, **settings: object) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="secateur-pg-", dir="/tmp"))  # the path of a socket is short
        self._user = "postgres" if os.geteuid() == 0 else None  # initdb and postgres refuse to run as root
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._data = self._folder / "data"
        # A test's database need not survive a power cut, and is gone before a checkpoint is worth its while.
        quick = {"fsync": "off", "full_page_writes": "off", "checkpoint_timeout": "1h", "max_wal_size": "10GB"}
        self._settings = {"listen_addresses": "", "unix_socket_directories": self._folder, **quick, **settings}
        self._server: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{number}" for number in itertools.count())
        self._run("initdb", "--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", f"--username={_OWNER}", self._data)

    def start(self) -> None:
        """Returns once it takes connections."""
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        log = (self._folder / "log").open("ab")
        command = ["postgres", "-D", str(self._data), *options]
        self._server = subprocess.Popen(command, stdout=log, stderr=log, user=self._user, cwd=self._folder)
        log.close()
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self._folder / "log").read_text()
            else:
                return

    def stop(self) -> None:
        """Ends it at once, every connection with it: ``pg_ctl stop -m immediate``."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def remove(self) -> None:
        """Stops it and deletes everything."""
        self.stop()
        shutil.rmtree(self._folder)

    def connect(self) -> psycopg.Connection:
        """As the owner, outside of any transaction."""
        return psycopg.connect(host=str(self._folder), user=_OWNER, dbname="postgres", autocommit=True, application_name="test")

    def database(self, name: str | None = None, template: str = "template0") -> str:
        """The name of a new database, a copy of the template."""
        name = name or next(self._names)
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[arg-type]
        return name

    def drop(self, name: str) -> None:
        """Deletes a database and ends its connections: hundreds of them, all at the end, take minutes to delete."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]

    def url(self, name: str) -> str:
        """SQLAlchemy's, of a database here."""
        return f"postgresql+psycopg://{_OWNER}@/{name}?host={self._folder}"

    def _run(self, *command: object) -> None:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, user=self._user, cwd=self._folder)


def installed() -> bool:
    """Whether there are the binaries that ``Postgres`` needs."""
    return all(shutil.which(name) for name in ("initdb", "postgres"))


@contextmanager
def postgres(**settings: object) -> Iterator[Postgres]:
    """A running server for a while; skips the test where none is installed."""
    if not installed():
        pytest.skip(INSTALL)
    server = Postgres(**settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()
