"""Commands that list what a job may choose: models and data sets that were uploaded, searchers, pruners."""

from __future__ import annotations

import typer

from service.cli.command import Json, answer, command
from service.cli.tables import show_algorithms, show_uploads


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "models")(models)
    command(app, "datasets")(datasets)
    command(app, "searchers")(searchers)
    command(app, "pruners")(pruners)


def models(as_json: Json = False) -> None:
    """Lists the models that were uploaded, the newest first."""
    _show_uploads("models", as_json)


def datasets(as_json: Json = False) -> None:
    """Lists the data sets that were uploaded, the newest first."""
    _show_uploads("datasets", as_json)


def searchers(as_json: Json = False) -> None:
    """Lists the search algorithms and their parameters."""
    _show("searchers", as_json)


def pruners(as_json: Json = False) -> None:
    """Lists the pruning criteria and schedules and their parameters."""
    _show("pruners", as_json)


def _show_uploads(kind: str, as_json: bool) -> None:
    from service.client import Client

    with Client() as client:
        found = list(client.models() if kind == "models" else client.datasets())
    answer(found, as_json, show_uploads)


def _show(kind: str, as_json: bool) -> None:
    from service.client import Client

    with Client() as client:
        found = client.searchers() if kind == "searchers" else client.pruners()
    answer(found, as_json, show_algorithms)
