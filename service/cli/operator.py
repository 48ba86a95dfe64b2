"""Commands for an operator, on the machine that has the data: schema, backup, space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.command import Json, answer, command, make_app, write_json

if TYPE_CHECKING:
    from service.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = make_app("Looks after the database.", "")
    command(group, "upgrade")(upgrade)
    app.add_typer(group, name="db")
    command(app, "backup")(backup)
    command(app, "restore")(restore)
    command(app, "gc")(gc)


DataDir = Annotated[Path | None, typer.Option(help="The service's data folder. [SECATEUR_DATA_DIR, else ./secateur-data]")]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="Replaced if there is one.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Writes the database and all files that it refers to into one tar file, while the service runs. SQLite only."""
    from service import backup as archive

    count = archive.backup(_settings(data_dir), file)
    found = {"path": str(file), "size": file.stat().st_size, "files": count}
    answer(found, as_json, lambda _: typer.echo(f"{file} ({found['size']:,} bytes) holds the database and {count} files"))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Of 'secateur backup'.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Fills an empty data folder from a backup, every file verified. Jobs that ran go on once 'secateur serve' runs."""
    from service import backup as archive

    count = archive.restore(_settings(data_dir), file)
    answer({"files": count}, as_json, lambda _: typer.echo(f"The database and {count} files are restored"))


def gc(
    data_dir: DataDir = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="Younger files stay, whoever refers to them.")] = 24.0,
    as_json: Json = False,
) -> None:
    """Deletes stored files that no model, data set or job has, uploads that broke off, and what ended jobs left.

    Idempotency keys older than a week are forgotten, and audit entries older than a year.
    """
    from service.database import Database
    from service.retention import collect
    from service.store import open_store

    settings = _settings(data_dir)
    database = Database(settings.database)
    try:
        freed = collect(database, open_store(settings), settings.data_dir, grace_hours * 3600)
    finally:
        database.close()
    forgotten = {"idempotency_keys": freed.idempotency_keys, "audit_entries": freed.audit_entries}
    if as_json:
        write_json({"files": freed.files, "bytes": freed.size, "folders": freed.folders, **forgotten})
    else:
        typer.echo(f"{freed.files} files ({freed.size:,} bytes) and {len(freed.folders)} folders of ended jobs are deleted")
        typer.echo(f"{freed.idempotency_keys} idempotency keys and {freed.audit_entries} audit entries are forgotten")


def upgrade(
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL. [SECATEUR_DATABASE_URL, else SQLite]")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a database that does not answer yet.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Brings the database to this version's schema. 'secateur serve' does so by itself; this is for doing it beforehand."""
    from service.database import Database, migrate
    from service.jobs.log import patiently
    from service.settings import Settings

    settings = Settings.load(**({} if database_url is None else {"database_url": database_url}))
    database = Database(settings.database)
    try:
        before, after = patiently(lambda: migrate.upgrade(database), seconds=wait)
    finally:
        database.close()
    if as_json:
        write_json({"before": before, "after": after})
    elif before == after:
        typer.echo(f"The database is up to date, at revision {after}.")
    else:
        typer.echo(f"The database is at revision {after} now; it was {f'at {before}' if before else 'empty'}.")


def _settings(data_dir: Path | None) -> Settings:
    from service.settings import Settings

    return Settings.load(**({} if data_dir is None else {"data_dir": data_dir}))
