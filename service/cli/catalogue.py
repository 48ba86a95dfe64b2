"""Commands that list what a job may choose: searchers, pruners."""

from __future__ import annotations

import typer

from service.cli.command import Json, command, write_json


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "searchers")(searchers)
    command(app, "pruners")(pruners)


def searchers(as_json: Json = False) -> None:
    """Lists the search algorithms and their parameters."""
    _show("searchers", as_json)


def pruners(as_json: Json = False) -> None:
    """Lists the pruning criteria and schedules and their parameters."""
    _show("pruners", as_json)


def _show(kind: str, as_json: bool) -> None:
    from service.client import Client

    with Client() as client:
        found = client.searchers() if kind == "searchers" else client.pruners()
    if as_json:
        write_json(found)
        return
    from service.cli.tables import show_algorithms

    show_algorithms(found)
