"""Commands that need no server running: serve, inspect, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.command import Json, answer, command, note
from service.cli.tables import show_inspection

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "serve", _SERVE)(serve)
    command(app, "inspect", _INSPECT)(inspect)
    command(app, "demo")(demo)


_SERVE = """\
  secateur serve
  secateur serve --data-dir /srv/secateur --port 9000
  SECATEUR_TOKEN=… secateur serve --host 0.0.0.0

Everything else is set by SECATEUR_* environment variables."""


def serve(
    host: Annotated[
        str | None, Option(help="Where to listen; beyond this machine only with SECATEUR_TOKEN set. [127.0.0.1]")
    ] = None,
    port: Annotated[int | None, Option(help="[8000]")] = None,
    database_url: Annotated[str | None, Option(help="SQLAlchemy URL. [SQLite in the data folder]")] = None,
    store: Annotated[
        str | None, Option(help="Folder of uploads and checkpoints, or s3://BUCKET/PREFIX. [store in the data folder]")
    ] = None,
    ray_address: Annotated[
        str | None, Option(help="Dashboard of a running Ray, http://HOST:8265. [a Ray of our own on this machine]")
    ] = None,
    data_dir: Annotated[Path | None, Option(help="Database, store, token and logs. [./secateur-data]")] = None,
) -> None:
    """Runs the service until it is interrupted."""
    from service.auth import admin_token
    from service.server import serve as run
    from service.settings import Settings

    given = {
        "host": host,
        "port": port,
        "database_url": database_url,
        "store": store,
        "ray_address": ray_address,
        "data_dir": data_dir,
    }
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    settings.check_exposure()
    if settings.token is None:
        token = admin_token(settings)
        note(f"Token: {token} (also in {settings.data_dir / 'token'}, where clients on this machine look)")
    note(f"Secateur serves http://{settings.host}:{settings.port} (its page of calls is /docs); Ctrl-C ends it.")
    run(settings)


_INSPECT = """\
  secateur inspect resnet20.pt2
  secateur inspect resnet20.pt2 --json | jq .groups
  secateur inspect resnet20.pt2 --svg resnet20.svg"""


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pt2", exists=True, dir_okay=False, help="An exported network.")],
    svg: Annotated[
        Path | None, Option(metavar="FILE", dir_okay=False, help="Also draw its layers, coloured by group, into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shows what a network costs and what of it can be pruned.

    Each group of channels that are pruned together is one line; what cannot be pruned says why. Needs no server.
    """
    from workers.inspection import inspect_model

    found = inspect_model(model)
    if svg is not None:
        from service.cli.picture import draw

        svg.write_text(draw(found, model.stem), encoding="utf-8")
        note(f"The picture is in {svg}.")
    answer(found, as_json, show_inspection)


def demo() -> None:
    """Trains a small network, prunes it by the service, compares the two."""
    from service.demo import run

    run()
