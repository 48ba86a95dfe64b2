"""Commands for an operator: the database's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.command import Json, command, make_app, write_json


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = make_app("Looks after the database.", "")
    command(group, "upgrade")(upgrade)
    app.add_typer(group, name="db")


def upgrade(
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL. [SECATEUR_DATABASE_URL, else SQLite]")] = None,
    as_json: Json = False,
) -> None:
    """Brings the database to this version's schema. 'secateur serve' does so by itself; this is for doing it beforehand."""
    from service.database import Database, migrate
    from service.settings import Settings

    settings = Settings.load(**({} if database_url is None else {"database_url": database_url}))
    database = Database(settings.database)
    try:
        before, after = migrate.upgrade(database)
    finally:
        database.close()
    if as_json:
        write_json({"before": before, "after": after})
    elif before == after:
        typer.echo(f"The database is up to date, at revision {after}.")
    else:
        typer.echo(f"The database is at revision {after} now; it was {f'at {before}' if before else 'empty'}.")
