"""Which criterion prunes best without any training, and what scoring costs, on a pretrained CIFAR ResNet.

    python -m benchmarks.criteria --data cifar10.npz --weights resnet56.safetensors --output criteria.json

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. Every criterion cuts the network to the same widths: one keep
fraction for all groups, residual streams too, the one that uses the MACs up. BatchNorm is recalibrated on 256 training
images, nothing is trained, and test images decide. A seed decides which training images calibrate, and what is random.

Before that, time: milliseconds to score all layers, and calibration over the plain passes that it rides on, a ratio that holds
on any machine. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from benchmarks.cifar import export_cifar_resnet
from pruners.calibration import calibrate
from pruners.criteria.base import CRITERIA, Calibrated, Criterion
from pruners.importance import watched
from searchers.space import Budget, Group, SearchSpace
from workers.data import Split, Splits, load
from workers.evaluator import Evaluator
from workers.spec import JobSpec

BATCH = 64  # images, as a job calibrates
_EQUAL = 0.5  # a preference for every group; any number below 1 does, only proportions count


def accuracies(model: Path, splits: Splits, name: str, cuts: Sequence[float], seed: int) -> list[dict[str, Any]]:
    """Test accuracy of one criterion at each cut."""
    recovery = {"least_squares": False}  # which would make up for a bad choice
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "pruner": {"name": name}, "recovery": recovery, "seed": seed})
    start = time.perf_counter()
    evaluator = Evaluator(model, splits, spec)
    seconds = time.perf_counter() - start
    found = []
    for cut in cuts:
        space = make_space(evaluator, 1 - cut)
        widths = space.project([_EQUAL] * len(space.groups))
        network = evaluator.prune(widths).network
        found.append(
            {
                "pruner": name,
                "cut": cut,
                "seed": seed,
                "accuracy": evaluator.quality(network, splits.test).metric,
                "achieved_cut": 1 - space.cost(widths) / space.cost(space.dense),
                "setup_seconds": round(seconds, 1),
            }
        )
    return found


def make_space(evaluator: Evaluator, ratio: float) -> SearchSpace:
    """All groups, on a budget of MACs."""
    prunable = evaluator.coupling.prunable
    groups = [Group(each.name, each.width, each.divisor, each.minimum, each.residual) for each in prunable]
    dense = evaluator.coupling.cost("macs", [each.width for each in prunable])
    return SearchSpace(groups, evaluator.coupling.cost, Budget.of("macs", dense, ratio=ratio))


def times(evaluator: Evaluator, images: Split, rounds: int) -> dict[str, float]:
    """Milliseconds to score all layers, and calibration over the plain passes, all in turns; medians of processor time."""
    module, coupling = evaluator.dense, evaluator.coupling
    layers = list(watched(module, coupling, CRITERIA["l1"]()).values())
    batches = list(images.batches(BATCH))
    weights = [layer.get_parameter("weight") for layer in layers]

    def forward() -> None:
        with torch.inference_mode():
            for inputs, _ in batches:
                module(inputs)

    def backward() -> None:
        for inputs, labels in batches:
            torch.autograd.grad(functional.cross_entropy(module(inputs), labels), weights)

    def scoring(criterion: Criterion) -> Callable[[], object]:
        return lambda: [criterion.scores(layer) for layer in layers]

    def calibrating(criterion: Calibrated) -> Callable[[], object]:
        parts = watched(module, coupling, criterion)
        return lambda: calibrate(module, parts, criterion, batches)

    runs: dict[str, Callable[[], object]] = {"forward": forward, "backward": backward}
    for name in ("l1", "l2", "fpgm"):
        runs[name] = scoring(CRITERIA[name]())
    for name in ("apoz", "mean_activation", "taylorfo"):
        needed = CRITERIA[name]()
        assert isinstance(needed, Calibrated)
        runs[name] = calibrating(needed)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            taken[name].append(time.thread_time() - start)
    shown = {f"{name}, ms": round(1e3 * statistics.median(taken[name]), 1) for name in ("l1", "l2", "fpgm")}
    for name, plain in (("apoz", "forward"), ("mean_activation", "forward"), ("taylorfo", "backward")):
        ratios = [mine / other for mine, other in zip(taken[name], taken[plain], strict=True)]
        shown[f"{name} / {plain} pass"] = round(statistics.median(ratios), 3)
    return shown


def table(results: list[dict[str, Any]], dense: float) -> Table:
    """Mean and range per criterion and cut."""
    shown = Table(title=f"Test accuracy, no fine-tuning, dense {dense:.1%}: mean (least … most) over seeds")
    cuts = sorted({result["cut"] for result in results})
    for column in ("pruner", *[f"−{cut:.0%} MACs" for cut in cuts]):
        shown.add_column(column)
    for name in sorted({result["pruner"] for result in results}):
        cells = []
        for cut in cuts:
            found = [each["accuracy"] for each in results if each["pruner"] == name and each["cut"] == cut]
            cells.append(f"{statistics.mean(found):.1%} ({min(found):.1%} … {max(found):.1%})")
        shown.add_row(name, *cells)
    return shown


def measure(arguments: argparse.Namespace, console: Console) -> None:
    """All of it; accuracies are written out as soon as they are there."""
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.pt2"
        export_cifar_resnet(arguments.weights, model)
        splits = load(arguments.data, 0)
        evaluator = Evaluator(model, splits, JobSpec.model_validate({"budget": {"ratio": 0.5}}))
        report: dict[str, Any] = {"results": results}
        if arguments.rounds:
            images = Split(splits.train.x[: 2 * BATCH], splits.train.y[: 2 * BATCH])
            report["times"] = times(evaluator, images, arguments.rounds)
            console.print(report["times"])
        dense = evaluator.quality(evaluator.dense, splits.test).metric
        for seed in arguments.seeds:
            splits = load(arguments.data, seed)
            for name in arguments.pruners:
                found = accuracies(model, splits, name, arguments.cuts, seed)
                results.extend(found)
                console.print(*[f"{each['pruner']} −{each['cut']:.0%}: {each['accuracy']:.1%}" for each in found], sep="  ")
                if arguments.output:
                    arguments.output.write_text(json.dumps(report, indent=1))
    if results:
        console.print(table(results, dense))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, required=True, help="a .safetensors of a CIFAR ResNet")
    parser.add_argument("--pruners", nargs="*", default=list(CRITERIA), help="none of them leaves the accuracies out")
    parser.add_argument("--cuts", nargs="+", type=float, default=[0.2, 0.4, 0.6], help="shares of the MACs to remove")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=9, help="of the timings; 0 leaves them out")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    measure(parser.parse_args(), Console())


if __name__ == "__main__":
    main()
