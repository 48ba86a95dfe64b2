"""Commands that need no server running: serve, inspect, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pruners.errors import InvalidInput
from service.cli.command import Json, answer, command, note
from service.cli.tables import show_inspection, show_replay

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "serve", _SERVE)(serve)
    command(app, "inspect", _INSPECT)(inspect)
    command(app, "replay", _REPLAY)(replay)
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


_REPLAY = """\
  secateur pull JOB --format card
  secateur replay JOB.card.json --model resnet20.pt2 --data cifar10.npz

The same versions on the same kind of machine give the same bytes."""


def replay(
    card: Annotated[Path, typer.Argument(metavar="CARD", exists=True, dir_okay=False, help="A model card.")],
    model: Annotated[Path, Option(metavar="MODEL.pt2", exists=True, dir_okay=False, help="The network that was uploaded.")],
    data: Annotated[Path, Option(metavar="DATA", exists=True, dir_okay=False, help="The data set that was uploaded.")],
    output: Annotated[Path | None, Option("--output", "-o", metavar="FOLDER", help="[CARD's name]")] = None,
    as_json: Json = False,
) -> None:
    """Makes a network again from its card, cut, trained and written as it was; fails if a file differs. Needs no server."""
    from pydantic import ValidationError

    from workers.card import Card
    from workers.replay import replay as run

    try:
        asked = Card.model_validate_json(card.read_bytes())
    except ValidationError as error:
        problem = "is no model card of this version of Secateur; pull it again, or replay it with the version that made it"
        raise InvalidInput("card", str(card), problem) from error
    folder = output or Path(card.name.split(".")[0])
    folder.mkdir(parents=True, exist_ok=True)
    files = run(asked, model, data, folder, lambda message, **_: note(message))
    same = all(file.same for file in files.values())
    shown = {form: {"path": str(file.path), "sha256": file.sha256, "same": file.same} for form, file in files.items()}
    answer(shown, as_json, show_replay)
    if not same:
        found = "; ".join(asked.differences()) or "versions and machine are the card's"
        note(f"Not all files are the card's: {found}.")
        raise typer.Exit(1)


def demo() -> None:
    """Trains a small network, prunes it by the service, compares the two."""
    from service.demo import run

    run()
