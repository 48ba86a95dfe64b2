"""What a cost costs: a query of the cost model against building the network and counting, on a ResNet-56.

    python -m benchmarks.cost --output cost.json

All of it in one process, on one thread and in turns, so that the ratios hold on any machine. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cifar import CifarResNet
from benchmarks.report import report
from pruners.cost import METRICS
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from service.client.export import export_model

BATCH = 10_000  # width vectors at once
QUERIES = 200  # single queries between two readings of the clock: one alone takes microseconds


def measure(depth: int, rounds: int) -> dict[str, object]:
    """Microseconds per query, one at a time, in a batch and by its gradient, and of building and counting instead."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(CifarResNet(depth), torch.zeros(2, 3, 32, 32), Path(folder) / "model.pt2")
        module = build_module(read_program(path))
    coupling = trace(module)
    random = np.random.default_rng(0)
    widths = np.stack([random.integers(1, group.width + 1, BATCH) for group in coupling.prunable], axis=1)
    image = torch.zeros(1, 3, 32, 32)
    counted: list[int] = []

    def build_and_count() -> None:
        network = shrink(module, coupling, [np.arange(width) for width in widths[0]])
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            network(image)
        counted.append(counter.get_total_flops() // 2)

    timed: dict[str, tuple[Callable[[], object], int]] = {"build and count": (build_and_count, 1)}
    for metric in METRICS:
        timed[f"{metric}, one query"] = (lambda m=metric: [coupling.cost(m, each) for each in widths[:QUERIES]], QUERIES)
        timed[f"{metric}, {BATCH:,} at once"] = (lambda m=metric: coupling.cost.batch(m, widths), BATCH)
        timed[f"{metric}, gradient"] = (lambda m=metric: [coupling.cost.gradient(m, w) for w in widths[:QUERIES]], QUERIES)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, (run, count) in timed.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / count)
    assert set(counted) == {coupling.cost("macs", widths[0])}, "what is fast must be right"
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "network": f"ResNet-{depth}",
        "groups": len(coupling.prunable),
        "microseconds": {name: round(1e6 * median, 2) for name, median in medians.items()},
        "times_faster": {name: round(medians["build and count"] / median) for name, median in medians.items()},
    }


def table(result: dict[str, object]) -> Table:
    """One line per way to know a cost."""
    shown = Table(title=f"Cost of one width vector, {result['network']}, {result['groups']} groups: medians")
    for column in ("", "µs", "times faster"):
        shown.add_column(column, justify="left" if column == "" else "right")
    microseconds, faster = result["microseconds"], result["times_faster"]
    assert isinstance(microseconds, dict)
    assert isinstance(faster, dict)
    for name, value in microseconds.items():
        shown.add_row(name, f"{value:,.2f}", f"{faster[name]:,}")
    return shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=56, help="of the CIFAR ResNet, 6n + 2")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON; without it they are printed")
    arguments = parser.parse_args()
    result = measure(arguments.depth, arguments.rounds)
    report(table(result), result, arguments.output)


if __name__ == "__main__":
    main()
