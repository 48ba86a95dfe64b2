"""How a benchmark says what it found: a table for people on stderr, JSON for programs on stdout or in a file.

One that takes hours keeps each result as a line of a file as soon as it is there, and goes on from what is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def report(table: Table, result: Any, output: Path | None) -> None:
    """Prints the table, and the result as JSON unless it is to go to ``output``."""
    Console(stderr=True).print(table)
    text = json.dumps(result, indent=1)
    if output:
        output.write_text(text)
    else:
        print(text)


def kept(path: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(result: dict[str, Any], path: Path) -> None:
    """Adds one."""
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")
