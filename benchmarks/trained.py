"""Searches whose trials train, against searches that do not, at equal MACs and equal training steps on a CIFAR ResNet.

    python -m benchmarks.trained --data cifar10.npz --weights resnet20.safetensors --output results.json

``--data`` and ``--weights`` as in ``benchmarks.cifar``, and so is what the search sees. A run's steps are those that went into
the winner's weights: a control is searched without training, and the network that it finds is then trained for as many, with
the same images, batches and loss. One process, one thread, no Ray.
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

from benchmarks.cifar import export_cifar_resnet
from searchers.base import Done, Proposal
from workers.data import load
from workers.evaluator import Evaluator, Pruned
from workers.inspection import describe_groups
from workers.plan import make_searcher, make_space
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
    steps: int
    trials: int
    seconds: float


NETADAPT = "netadapt, 20 steps a candidate"
COMPARISONS: dict[str, list[Method]] = {
    "netadapt": [
        Method(NETADAPT, "netadapt", recovery={"short_steps": 20}),
        Method("netadapt, then trained", "netadapt", against=NETADAPT),
        Method("uniform, then trained", "uniform", against=NETADAPT),
    ],
    "least_squares": [
        Method("uniform", "uniform"),
        Method("uniform, least squares", "uniform", recovery={"least_squares": True}),
    ],
    "autocompress": [
        Method("autocompress", "autocompress"),
        Method("uniform, then trained as long", "uniform", against="autocompress"),
    ],
}


def run(model: Path, data: Path, method: Method, ratio: float, seed: int, max_trials: int, steps: int) -> Result:
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
    space = make_space(describe_groups(evaluator.coupling), evaluator.coupling.cost, spec)
    machine = make_searcher(space, spec)
    start = time.perf_counter()
    networks: list[Pruned | None] = []
    best: tuple[float, int, Sequence[int]] = (float("-inf"), -1, ())
    while not isinstance(proposal := machine.ask(), Done):
        assert isinstance(proposal, Proposal)  # with nothing running a searcher never waits
        parent = None if proposal.parent is None else networks[proposal.parent]
        outcome, network = evaluator.evaluate_keeping(proposal.widths, parent, proposal.training)
        networks.append(network)
        machine.tell(proposal.id, outcome)
        if outcome.score is not None and space.fits(proposal.widths):
            best = max(best, (outcome.score, proposal.id, proposal.widths))
    winner = networks[best[1]]
    assert winner is not None
    if steps:
        short_tune(evaluator.trainer(winner.network), steps)
        evaluator.recalibrate(winner.network)
    accuracy = evaluator.quality(winner.network, splits.test).accuracy
    macs = space.cost(best[2]) / space.cost(space.dense)
    seconds = time.perf_counter() - start
    return Result(method.name, seed, ratio, macs, accuracy, winner.steps + steps, len(networks), seconds)


def table(results: Sequence[Result]) -> Table:
    """Mean, least and greatest accuracy over the seeds."""
    shown = Table("method", "MACs", "steps", "trials", "accuracy", "seconds")
    for name in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == name]
        accuracies = [100 * result.accuracy for result in own]
        spread = f"{statistics.mean(accuracies):.1f} % ({min(accuracies):.1f}…{max(accuracies):.1f})"
        means = [statistics.mean(values) for values in zip(*((r.steps, r.trials, r.seconds) for r in own), strict=True)]
        macs = statistics.mean(result.macs_ratio for result in own)
        shown.add_row(name, f"{macs:.4f}", f"{means[0]:.0f}", f"{means[1]:.0f}", spread, f"{means[2]:.0f}")
    return shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, required=True, help="a .safetensors of a CIFAR ResNet")
    parser.add_argument("--compare", choices=COMPARISONS, nargs="+", default=list(COMPARISONS))
    parser.add_argument("--ratio", type=float, default=0.5, help="of the dense network's MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-trials", type=int, default=60, help="of each search")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, results = Console(), []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.pt2"
        export_cifar_resnet(arguments.weights, model)
        for seed in arguments.seeds:
            for method in (method for name in arguments.compare for method in COMPARISONS[name]):
                steps = next((r.steps for r in results if r.method == method.against and r.seed == seed), 0)
                results.append(run(model, arguments.data, method, arguments.ratio, seed, arguments.max_trials, steps))
                console.print(asdict(results[-1]))
                if arguments.output:
                    arguments.output.write_text(json.dumps([asdict(result) for result in results], indent=1))
    console.print(table(results))


if __name__ == "__main__":
    main()
