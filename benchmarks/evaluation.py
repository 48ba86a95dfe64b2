"""What one candidate's evaluation costs beside a forward pass of the dense network over the same images, on one core.

    python -m benchmarks.evaluation --data cifar10.npz --weights resnet56.safetensors --output evaluation.json

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. The candidate is the uniform plan at half of the MACs, and
nothing of it is known: shrinking, recalibration on 256 images and scoring on 1,000, with and without least squares, and with
``resources.precision: bfloat16``. The dense network is passed through as it came, in batches of two sizes. All in one process,
on one thread and in turns; medians of CPU time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from benchmarks.cifar import command_line, exported
from benchmarks.report import report
from searchers.uniform import uniform_plans
from workers.data import Split, Splits, load
from workers.evaluator import Evaluator
from workers.passes import Passes
from workers.spec import JobSpec

_IMAGES = 1000  # over which the 256 of recalibration are spread
_RATIO = 0.5


def measure(model: Path, data: Path, rounds: int) -> dict[str, Any]:
    """CPU seconds of each way to pass over the images, and what share of the dense network's they are."""
    torch.set_num_threads(1)
    loaded = load(data, 0)
    train, held = loaded.train, loaded.train.x[:_IMAGES]
    splits = Splits(Split(train.x[_IMAGES:], train.y[_IMAGES:]), Split(held, train.y[:_IMAGES]), loaded.test)
    plain, solved, fast, fast_solved = (
        _evaluator(model, splits, least_squares, precision)
        for precision in ("float32", "bfloat16")
        for least_squares in (False, True)
    )
    plan = uniform_plans(plain.space())[0]
    cut = plain.prune(plan).network
    timed: dict[str, Callable[[], object]] = {
        "dense forward, batches of 128": lambda: _forward(plain.dense, splits.search, 128),
        "dense forward, batches of 64": lambda: _forward(plain.dense, splits.search, 64),
        "cut forward, batches of 64": lambda: _forward(cut, splits.search, 64),
        "scoring alone": lambda: plain.quality(cut, splits.search),
        "candidate": lambda: plain.evaluate(plan),
        "candidate with least squares": lambda: solved.evaluate(plan),
        "candidate in bfloat16": lambda: fast.evaluate(plan),
        "the same with least squares": lambda: fast_solved.evaluate(plan),
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(rounds + 1):  # the first one warms up
        for name, run in timed.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "images": _IMAGES,
        "macs": plain.plan(plan).macs / plain.plan([group.width for group in plain.coupling.prunable]).macs,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "of_dense_128": {name: round(value / medians["dense forward, batches of 128"], 3) for name, value in medians.items()},
        "of_dense_64": {name: round(value / medians["dense forward, batches of 64"], 3) for name, value in medians.items()},
    }


def table(result: dict[str, Any], network: str) -> Table:
    """One line per way."""
    shown = Table(title=f"{network}, {result['images']} images, {result['macs']:.0%} of the MACs: medians of CPU time")
    for column in ("", "seconds", "of dense, 128", "of dense, 64"):
        shown.add_column(column, justify="right" if column else "left")
    for name, seconds in result["seconds"].items():
        shown.add_row(name, f"{seconds:.2f}", f"{result['of_dense_128'][name]:.2f}", f"{result['of_dense_64'][name]:.2f}")
    return shown


def _evaluator(model: Path, splits: Splits, least_squares: bool, precision: str) -> Evaluator:
    resources = {"precision": precision}
    spec = {"budget": {"ratio": _RATIO}, "recovery": {"least_squares": least_squares}, "resources": resources}
    made = Evaluator(model, splits, asked := JobSpec.model_validate(spec))
    # The same plan again and again would share everything.
    made.passes = Passes(made.dense, splits, asked.recovery.batchnorm_images, prefix_bytes=0, resources=asked.resources)
    made.quality(made.dense, splits.search)  # what the dense network says is known to all candidates
    return made


@torch.inference_mode()
def _forward(network: nn.Module, split: Split, size: int) -> None:
    for images, _ in split.batches(size):
        network(images)


def main() -> None:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with exported(arguments.weights) as model:
        result = {"network": arguments.weights.stem, **measure(model, arguments.data, arguments.rounds)}
    report(table(result, arguments.weights.stem), result, arguments.output)


if __name__ == "__main__":
    main()
