"""Commands for the administrator, from anywhere: keys, users and their quotas, what was done."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from service.cli.command import Json, answer, command, make_app, note, write_json
from service.cli.tables import show_audit, show_keys, show_users
from service.cli.values import parse_limit
from service.scopes import Scope

Option = typer.Option
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="A key's id, as create and list show it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    keys = make_app("Makes, lists and revokes API keys.", "")
    command(keys, "create", _CREATE)(create_key)
    command(keys, "list")(list_keys)
    command(keys, "revoke")(revoke_key)
    app.add_typer(keys, name="keys")
    users = make_app("Shows users and sets what they may have.", "")
    command(users, "list")(list_users)
    command(users, "set", _SET)(set_user)
    app.add_typer(users, name="users")
    command(app, "audit")(audit)


_CREATE = """\
  secateur keys create --user alice
  secateur keys create --user prometheus --scope read --name scraper

A key of scope read looks, submit also uploads and makes jobs, admin also
manages keys and sees what all users have."""


def create_key(
    user: Annotated[str, Option(help="Whose: lower-case letters, digits and hyphens. Made if not known yet.")],
    scope: Annotated[Scope, Option(help="What it is for.")] = Scope.SUBMIT,
    name: Annotated[str | None, Option(help="For people. [the user's]")] = None,
    as_json: Json = False,
) -> None:
    """Makes an API key and shows it, this once."""
    from service.client import Client

    with Client() as client:
        made = client.create_key(user, scope, name)
    if as_json:
        write_json(made)
        return
    note(f"{made['id']} of {made['user']}, scope {made['scope']}. It is shown this once; set SECATEUR_TOKEN to it:")
    typer.echo(made["key"])


def list_keys(as_json: Json = False) -> None:
    """Lists all keys, the newest first, with their last use."""
    from service.client import Client

    with Client() as client:
        found = list(client.keys())
    answer(found, as_json, show_keys)


def revoke_key(key: KeyId, as_json: Json = False) -> None:
    """Makes a key useless, at once and for good. Its user and what they have stay."""
    from service.client import Client

    with Client() as client:
        revoked = client.revoke_key(key)
    answer(revoked, as_json, lambda key: typer.echo(f"{key['id']} of {key['user']} is revoked"))


def list_users(as_json: Json = False) -> None:
    """Lists all users with what they have and may have."""
    from service.client import Client

    with Client() as client:
        found = list(client.users())
    answer(found, as_json, show_users)


_SET = """\
  secateur users set alice --max-jobs 4 --max-bytes 100000000000
  secateur users set alice --max-trials none"""


def set_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user's name.")],
    max_jobs: Annotated[str | None, Option(metavar="N|none", help="Jobs that have not ended, at most.")] = None,
    max_trials: Annotated[str | None, Option(metavar="N|none", help="Trials that those jobs plan, at most.")] = None,
    max_bytes: Annotated[str | None, Option(metavar="N|none", help="Of models, data sets and checkpoints, at most.")] = None,
    as_json: Json = False,
) -> None:
    """Sets a user's quotas; those that are not named stay."""
    given = {"max_jobs": max_jobs, "max_trials": max_trials, "max_bytes": max_bytes}
    quotas = {name: parse_limit(f"--{name.replace('_', '-')}", text) for name, text in given.items() if text is not None}
    from service.client import Client

    with Client() as client:
        changed = client.set_quotas(user, quotas)
    answer(changed, as_json, lambda changed: show_users([changed]))


def audit(
    limit: Annotated[int, Option(min=1, help="How many, the oldest first.")] = 1000,
    after: Annotated[int, Option(min=0, help="Behind the entry of this number.")] = 0,
    as_json: Json = False,
) -> None:
    """Lists who asked for what to be changed, from where, and what they were answered."""
    from service.client import Client

    with Client() as client:
        found = list(islice(client.audit(after), limit))
    answer(found, as_json, show_audit)
