"""Searches whose trials train, against searches that do not, at equal MACs and equal training steps.

    python -m benchmarks.trained --data cifar10.npz --weights resnet20.safetensors --output results.json
    python -m benchmarks.trained --ratio 0.15 --short-steps 5 --final 60

``--data`` and ``--weights`` as in ``benchmarks.cifar``; without them, the handwritten digits and the small ResNet of the demo.
What the search sees is as there. A run's steps are those that went into
the winner's weights: a control is searched without training, and the network that it finds is then trained for as many, with
the same images, batches and loss. ``--final`` steps more are trained in the end, a control's at once with those before.
One process, one thread, no Ray; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import walk
from benchmarks.cifar import export_cifar_resnet
from service.client.export import export_model
from service.demo.digits import make_data, train_network
from workers.data import load
from workers.evaluator import Evaluator
from workers.plan import make_searcher
from workers.spec import JobSpec
from workers.training import short_tune


@dataclass(frozen=True)
class Method:
    """A search, what its trials train, and whether its winner is a control, trained for as long as the ``against`` run's."""

    name: str
    searcher: str
    params: dict[str, Any] = field(default_factory=dict)
    recovery: dict[str, Any] = field(default_factory=dict)
    against: str | None = None


@dataclass(frozen=True)
class Result:
    """One method with one seed."""

    method: str
    seed: int
    ratio: float
    macs_ratio: float
    accuracy: float
    tuned: float
    steps: int
    trials: int
    seconds: float


COMPARED = ("netadapt", "least_squares", "autocompress")


def methods(compared: str, short_steps: int) -> list[Method]:
    """What is compared, the method before its controls."""
    if compared == "least_squares":
        plain = Method("uniform, BatchNorm alone", "uniform", recovery={"least_squares": False})
        return [plain, Method("uniform, least squares", "uniform")]
    if compared == "autocompress":
        first, controls = Method("autocompress", "autocompress"), ("uniform", "simulated_annealing")
    else:
        first = Method(f"netadapt, {short_steps} steps a candidate", "netadapt", recovery={"short_steps": short_steps})
        controls = ("netadapt", "uniform")
    return [first, *(Method(f"{name}, then trained as long as {compared}", name, against=first.name) for name in controls)]


def run(model: Path, data: Path, method: Method, ratio: float, seed: int, max_trials: int, steps: int, final: int) -> Result:
    """One search, and its winner, trained for so many more steps, on the test images."""
    spec = JobSpec.model_validate(
        {
            "budget": {"ratio": ratio},
            "searcher": {"name": method.searcher, "params": method.params},
            "recovery": method.recovery,
            "limits": {"max_trials": max_trials},
            "seed": seed,
        }
    )
    splits = load(data, seed)
    evaluator = Evaluator(model, splits, spec)
    space = evaluator.space()
    found = walk.search(make_searcher(space, spec), evaluator, space)
    winner = found.pruned
    start = time.process_time()

    def trained(more: int) -> float:
        restored = evaluator.restored(winner.state())
        network = restored.network
        if more:
            short_tune(evaluator.trainer(restored), more)
            evaluator.recalibrate(network)
        return evaluator.quality(network, splits.test).metric

    accuracy = trained(steps)
    tuned = trained(steps + final) if final else accuracy
    macs = space.cost(found.widths) / space.cost(space.dense)
    seconds = found.seconds + time.process_time() - start
    return Result(method.name, seed, ratio, macs, accuracy, tuned, winner.steps + steps, found.trials, seconds)


def table(results: Sequence[Result]) -> Table:
    """Mean, least and greatest accuracy over the seeds."""
    shown = Table("method", "MACs", "steps", "accuracy", "with --final more", "trials", "seconds")
    for name in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == name]
        spreads = [_spread([r.accuracy for r in own]), _spread([r.tuned for r in own])]
        means = [statistics.mean(values) for values in zip(*((r.steps, r.trials, r.seconds) for r in own), strict=True)]
        macs = statistics.mean(result.macs_ratio for result in own)
        shown.add_row(name, f"{macs:.4f}", f"{means[0]:.0f}", *spreads, f"{means[1]:.0f}", f"{means[2]:.0f}")
    return shown


def _spread(shares: Sequence[float]) -> str:
    return f"{statistics.mean(shares):.1%} ({min(shares):.1%} … {max(shares):.1%})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, help="a .safetensors of a CIFAR ResNet")
    parser.add_argument("--compare", choices=COMPARED, nargs="+", default=COMPARED)
    parser.add_argument("--ratio", type=float, default=0.5, help="of the dense network's MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-trials", type=int, default=60, help="of each search")
    parser.add_argument("--short-steps", type=int, default=20, help="of training each of netadapt's candidates")
    parser.add_argument("--final", type=int, default=200, help="steps of training in the end, for every method")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.weights is None):
        parser.error("give both --data and --weights, or neither")
    torch.set_num_threads(1)
    console, results = Console(), []
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder) / "model.pt2", arguments.data
        if data is None:
            data = Path(folder) / "digits.npz"
            export_model(train_network(make_data(data)), torch.zeros(2, 1, 8, 8), model)
        else:
            export_cifar_resnet(arguments.weights, model)
        for seed in arguments.seeds:
            for method in (method for name in arguments.compare for method in methods(name, arguments.short_steps)):
                steps = next((r.steps for r in results if r.method == method.against and r.seed == seed), 0)
                results.append(run(model, data, method, arguments.ratio, seed, arguments.max_trials, steps, arguments.final))
                console.print(asdict(results[-1]))
                if arguments.output:
                    arguments.output.write_text(json.dumps([asdict(result) for result in results], indent=1))
    console.print(table(results))


if __name__ == "__main__":
    main()
