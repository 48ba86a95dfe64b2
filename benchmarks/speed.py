"""What a search costs, in one table: every figure beside what it is to be. Each comes from a benchmark of its own.

    python -m benchmarks.speed --data cifar10.npz --resnet20 resnet20.safetensors --resnet56 resnet56.safetensors

Data and weights are those of ``benchmarks.cifar``. An hour on two cores; the 64 workers take 10 GB of memory (``--skip`` leaves
benchmarks out, by the names in the table).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.report import report


@dataclass(frozen=True)
class Figure:
    """One line: what it is of a benchmark's JSON, and its least or greatest value."""

    what: str
    of: Callable[[Any], float]
    least: float | None = None
    most: float | None = None
    form: str = ".2f"

    def holds(self, value: float) -> bool:
        """Whether the value is what it is to be."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def figures() -> dict[str, list[Figure]]:
    """By benchmark, what is said of it."""
    return {
        "workers": [
            Figure("busy, proposals at any time", lambda found: found["free"]["busy"], least=0.96, form=".1%"),
            Figure("busy, rounds of eight", lambda found: found["rounds"]["busy"], least=0.95, form=".1%"),
            Figure("ms a trial", lambda found: found["nothing"]["ms_around_a_trial"], most=25, form=".1f"),
            Figure("time in which two jobs both go on", lambda found: found["two jobs"]["overlap"], least=0.5, form=".0%"),
        ],
        "64 workers": [Figure("busy, 64 workers", lambda found: found["free"]["busy"], least=0.9, form=".1%")],
        "evaluation": [
            Figure("candidate, of the dense forward", lambda found: found["of_dense_128"]["candidate"], most=0.45),
            Figure("the same in bfloat16", lambda found: found["of_dense_128"]["candidate in bfloat16"], most=0.45),
        ],
        "rounds": [
            Figure("times fewer image-forwards", lambda found: found["summary"]["both"]["times_fewer_forwards"], least=3),
            Figure("rounds with the same winner", _same_winners, least=1, form=".0%"),
        ],
        "two workers": [
            Figure("times faster", lambda found: _seconds(found, "one worker") / _seconds(found, "two workers"), least=1.8),
            Figure("MiB that a worker adds", _added, most=95, form=".0f"),
        ],
        "throughput": [Figure("images a second, of a bare loop", lambda found: found["share"], least=0.8, form=".0%")],
    }


def commands(data: Path, resnet20: Path, resnet56: Path) -> dict[str, list[str]]:
    """By benchmark, the module and its arguments."""
    small, large = (["--data", str(data), "--weights", str(weights)] for weights in (resnet20, resnet56))
    return {
        "workers": ["workers"],
        "64 workers": ["workers", "--workers", "64", "--nodes", "4", "--seconds", "5", "--trials", "768"],
        "evaluation": ["evaluation", *large],
        "rounds": ["rounds", *small, "--images", "2048"],
        "two workers": ["workers", *large, "--trials", "24"],
        "throughput": ["throughput", *large],
    }


def _same_winners(found: Any) -> float:
    both = found["summary"]["both"]
    return float(both["same_winners"] / both["rounds"])


def _seconds(found: Any, name: str) -> float:
    return float(found[name]["window_seconds"])


def _added(found: Any) -> float:
    return float(found["two workers"]["private_mib"] - found["asleep"]["private_mib"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "resnet20", "resnet56"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--skip", nargs="*", default=[], choices=list(figures()), help="benchmarks to leave out")
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON; without it they are printed")
    arguments = parser.parse_args()
    shown = Table(title="What a search costs")
    for column in ("benchmark", "figure", "found", "to be", ""):
        shown.add_column(column, justify="right" if column in ("found", "to be") else "left")
    results: dict[str, Any] = {}
    for name, command in commands(arguments.data, arguments.resnet20, arguments.resnet56).items():
        if name in arguments.skip:
            continue
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "found.json"
            run = [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:], "--output", str(output)]
            subprocess.run(run, check=True)
            results[name] = json.loads(output.read_text())
        for each in figures()[name]:
            value = each.of(results[name])
            bound = f"≥ {each.least:{each.form}}" if each.least is not None else f"≤ {each.most:{each.form}}"
            shown.add_row(name, each.what, f"{value:{each.form}}", bound, "" if each.holds(value) else "not met")
    report(shown, results, arguments.output)


if __name__ == "__main__":
    main()
