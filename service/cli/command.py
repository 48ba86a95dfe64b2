"""What all commands share: how they are declared, fail, and write JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from pruners.errors import SecateurError

Function = TypeVar("Function", bound=Callable[..., None])
Found = TypeVar("Found")

INTERRUPTED = 130  # 128 + SIGINT, what shells report

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout and nothing else.")]
"""The ``--json`` option; a command's parameter of this type is called ``as_json``."""


class _Command(TyperCommand):
    """Ends a refused command with its one sentence instead of a trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(INTERRUPTED) from interrupt
        except BrokenPipeError:
            raise  # Click ends the command quietly: whoever read the output has enough
        except SecateurError as error:
            sentence = str(error)
        except OSError as error:
            sentence = f"{error.filename or 'The system'}: {error.strerror or error}."
        if ctx.params.get("as_json"):
            write_json({"error": sentence})
        else:
            typer.echo(f"secateur: {sentence}", err=True)
        raise typer.Exit(1)


def make_app(summary: str, text: str) -> typer.Typer:
    """The command line without commands. Plain help: it reads the same in a log, and imports no rich."""
    app = typer.Typer(
        help=_help(summary, text),
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # Without a callback, Typer would make an app of one command that command.
    app.callback()(lambda: None)
    return app


def command(app: typer.Typer, name: str, examples: str = "") -> Callable[[Function], Function]:
    """Decorator that adds a command; the function's docstring is its help, followed by the examples."""

    def add(function: Function) -> Function:
        doc = cleandoc(function.__doc__ or "")
        text = f"Examples:\n\n{examples}" if examples else ""
        app.command(name, cls=_Command, help=_help(doc, text))(function)
        return function

    return add


def answer(found: Found, as_json: bool, show: Callable[[Found], None]) -> None:
    """What a command found: as its one document, or as ``show`` shows it to people."""
    if as_json:
        write_json(found)
    else:
        show(found)


def write_json(document: Any) -> None:
    """The command's one document on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def note(line: str) -> None:
    """Something for a person that is no part of the result: on stderr."""
    typer.echo(line, err=True)


def _help(summary: str, text: str) -> str:
    """Help whose second part keeps its lines (``\\b`` tells Click so, paragraph by paragraph)."""
    paragraphs = [f"\b\n{paragraph}" for paragraph in text.split("\n\n") if paragraph]
    return "\n\n".join([summary, *paragraphs])
