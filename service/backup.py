"""A whole service in one file, and back: ``secateur backup`` and ``secateur restore``, for the embedded database.

The file is a tar archive: ``secateur.db``, a copy that SQLite made of its file while others may write it, and
``store/SHA256`` for all files that this copy refers to. Files of the store never change, so that the two are of one moment.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import make_url

from pruners.errors import InvalidInput
from service.settings import Settings
from service.store import open_store

_DATABASE = "secateur.db"
_USED = """SELECT sha256 FROM models UNION SELECT sha256 FROM datasets UNION SELECT sha256 FROM checkpoints
UNION SELECT json_extract(inspection, '$.arrays') FROM datasets WHERE json_extract(inspection, '$.arrays') IS NOT NULL"""


def backup(settings: Settings, target: Path) -> int:
    """Writes the file, whole or not at all; the number of stored files in it. The service may run meanwhile.

    Raises:
        InvalidInput: the database is no SQLite file, or there is none.
        Damaged: a file of the store is not what it was stored as.
    """
    store = open_store(settings)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".backup-") as folder:
        copy = Path(folder) / _DATABASE
        uri = f"{_file(settings).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as live, closing(sqlite3.connect(copy)) as own:
            live.backup(own)
            used = [sha256 for (sha256,) in own.execute(_USED)]
        unfinished = Path(folder) / "backup.tar"
        with tarfile.open(unfinished, "w") as archive:
            archive.add(copy, _DATABASE)
            for sha256 in used:
                archive.add(store.verified(sha256), f"store/{sha256}")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    return len(used)


def restore(settings: Settings, source: Path) -> int:
    """Fills an empty data folder from a backup; the number of stored files in it.

    Jobs that ran when the backup was made go on from there.

    Raises:
        InvalidInput: there is a database already, or the file is no backup, or a damaged one.
    """
    database, store = _file(settings, there=False), open_store(settings)
    if database.exists():
        raise InvalidInput("--data-dir", str(database.parent), "holds a database already; restore into an empty folder")
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished, count = database.with_suffix(".restoring"), 0
    with _readable(source) as archive:
        for member in archive:
            content = archive.extractfile(member) or io.BytesIO()
            if member.name == _DATABASE:
                with unfinished.open("wb") as file:
                    while chunk := content.read(2**20):
                        file.write(chunk)
                    os.fsync(file.fileno())
            elif member.name.startswith("store/"):
                blob = store.put(iter(lambda: content.read(2**20), b""))  # noqa: B023 - used up at once
                if f"store/{blob.sha256}" != member.name:
                    raise InvalidInput("FILE", str(source), f"is damaged: {member.name} has other bytes than its name says")
                count += 1
    if not unfinished.exists():
        raise InvalidInput("FILE", str(source), f"is no backup: {_DATABASE} is not in it")
    with closing(sqlite3.connect(unfinished)) as found:
        lost = [sha256 for (sha256,) in found.execute(_USED) if not store.has(sha256)]
    if lost:
        raise InvalidInput("FILE", str(source), f"is incomplete: {len(lost)} of the files that it refers to are not in it")
    os.replace(unfinished, database)
    return count


def _file(settings: Settings, there: bool = True) -> Path:
    url = make_url(settings.database)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise InvalidInput(
            "SECATEUR_DATABASE_URL",
            url.render_as_string(),
            "is not SQLite; use pg_dump and copy the store (docs/operations.md)",
        )
    if there and not Path(url.database).exists():
        raise InvalidInput("--data-dir", str(Path(url.database).parent), "holds no database; name the service's data folder")
    return Path(url.database)


@contextmanager
def _readable(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise InvalidInput("FILE", str(source), f"is no backup, or a damaged one: {error}") from error
