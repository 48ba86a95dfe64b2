"""Every architecture of the zoo, as a table and as JSON; exit code 1 if any fails.

python -m benchmarks.zoo.run [--only resnet18 vit] [--jobs 2] [--compare] [--output zoo.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.zoo.networks import BARS, ZOO

LIMIT = 900  # seconds for one network; the slowest takes about one minute on a free machine
PEER_LIMIT = 60  # seconds for Torch-Pruning on one network; where it works it takes less than ten

_COLUMNS = (  # title, key, format
    ("groups", "groups", "d"),
    ("prunable", "prunable", "d"),
    ("channels", "channels", ".1%"),  # in prunable groups, of those that are not outputs
    ("in reach", "coverage", ".1%"),  # parameters, see benchmarks.zoo.coverage
    ("trace ms", "trace_ms", ".0f"),
    ("shrink ms", "shrink_ms", ".0f"),
    ("shrunk − masked", "difference", ".0e"),
)


def measure(name: str, compare: bool) -> dict[str, Any]:
    """One network's figures, measured in a process of its own; a crash or a hang becomes its verdict."""
    found = {"name": name, "family": ZOO[name].family, **_run("measure", name, LIMIT, "verdict")}
    if compare:
        found["peer"] = _run("peer", name, PEER_LIMIT, "peer_verdict")
    return found


def _run(module: str, name: str, limit: int, verdict: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.zoo.{module}", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {verdict: f"took more than {limit} s"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {verdict: f"crashed with exit code {done.returncode}: {last}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(results: list[dict[str, Any]]) -> Table:
    """A row per network."""
    shown = Table(title="Half of every group removed at random")
    shown.add_column("network", overflow="fold")
    for title, _, _ in _COLUMNS:
        shown.add_column(title, justify="right")
    shown.add_column("verdict", overflow="fold")
    for found in results:
        shown.add_row(found["name"], *[_cell(found, key, form) for _, key, form in _COLUMNS], found["verdict"])
    return shown


def frozen(results: list[dict[str, Any]]) -> Table:
    """Why groups are frozen, over all networks."""
    counts: dict[str, int] = {}
    for found in results:
        for reason, count in found.get("frozen", {}).items():
            counts[reason] = counts.get(reason, 0) + count
    shown = Table("groups", "frozen because it", title="What cannot be pruned")
    for reason in sorted(counts, key=lambda reason: -counts[reason]):
        shown.add_row(str(counts[reason]), reason)
    return shown


def comparison(results: list[dict[str, Any]]) -> Table:
    """Side by side with Torch-Pruning; the last rows speak of the networks where both succeed."""
    shown = Table(title="Half of every group removed: this engine and Torch-Pruning")
    columns = ("trace ms", "its graph ms", "shrink ms", "its pruning ms", "MACs kept", "its MACs kept")
    for column in ("network", *columns, "this engine", "Torch-Pruning"):
        shown.add_column(column, justify="right" if column in columns else "left", overflow="fold")
    keys = (("trace_ms", ".0f"), ("graph_ms", ".0f"), ("shrink_ms", ".0f"), ("prune_ms", ".0f"))
    flat = [{**found, **{key: value for key, value in found["peer"].items() if key != "macs_kept"}} for found in results]
    for found, both in zip(results, flat, strict=True):
        cells = [_cell(both, key, form) for key, form in keys]
        shares = [_cell(found, "macs_kept", ".0%"), _cell(found["peer"], "macs_kept", ".0%")]
        shown.add_row(found["name"], *cells, *shares, found["verdict"], found["peer"]["peer_verdict"])
    fine = [both for both in flat if both["verdict"] == both["peer_verdict"] == "ok"]
    medians = [f"{statistics.median(both[key] for both in fine):{form}}" for key, form in keys] if fine else [""] * len(keys)
    works = [sum(both[key] == "ok" for both in flat) for key in ("verdict", "peer_verdict")]
    shown.add_section()
    shown.add_row("medians, successes", *medians, "", "", *[f"{count} of {len(flat)}" for count in works])
    pairs = {"trace_ms": "graph_ms", "shrink_ms": "prune_ms"}
    faster = [f"{sum(both[ours] < both[its] for both in fine)} of {len(fine)}" for ours, its in pairs.items()]
    shown.add_row("faster here", faster[0], "", faster[1])
    return shown


def _cell(found: dict[str, Any], key: str, form: str) -> str:
    return f"{found[key]:{form}}" if key in found else ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="networks whose name contains one of these")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time; timings want 1")
    parser.add_argument("--compare", action="store_true", help="measure Torch-Pruning too")
    parser.add_argument("--output", type=Path, help="where to write everything as JSON")
    arguments = parser.parse_args()
    names = [name for name in ZOO if any(part in name for part in arguments.only)]
    if not names:
        parser.error(f"no network is called {' or '.join(arguments.only)}; there are {', '.join(ZOO)}")
    console = Console(width=None if sys.stdout.isatty() else 180)  # a file has room for whole rows
    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(lambda name: measure(name, arguments.compare), names):
            results.append(found)
            console.print(f"{len(results)} of {len(names)}: {found['name']}: {found['verdict']}", highlight=False, markup=False)
            if arguments.output:
                arguments.output.write_text(json.dumps(results, indent=1))
    console.print(table(results))
    console.print(frozen(results))
    if arguments.compare:
        console.print(comparison(results))
    fine = sum(found["verdict"] == "ok" for found in results)
    bars = ", ".join(f"{bar:.0%} on {family} networks" for family, bar in BARS.items() if bar)
    console.print(f"{fine} of {len(results)} networks pass; in reach must be {bars}.", highlight=False)
    sys.exit(0 if fine == len(results) else 1)


if __name__ == "__main__":
    main()
