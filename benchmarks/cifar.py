"""Searchers against their controls on a pretrained CIFAR ResNet, at equal MACs, without any fine-tuning.

    python -m benchmarks.cifar --data cifar10.npz --weights resnet20.safetensors --output results.json

``--data``: x_train, y_train, x_test, y_test; images uint8 [n, 3, 32, 32]. The whole set comes from
https://www.cs.toronto.edu/~kriz/cifar.html; the first images of each of its batches will do.
``--weights``: a CIFAR ResNet of He et al. 2016 with option-A shortcuts, keyed conv1, bn1, layer{1,2,3}.{i}.{conv,bn}{1,2},
linear, as https://github.com/akamaster/pytorch_resnet_cifar10 has them.

The search sees images held out of the training split; test images are used once per searched network. A seed decides
which images are held out, and what a random search draws. One process, one thread, no Ray.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from searchers.base import Done, Proposal
from service.client.export import export_model
from workers.data import load
from workers.evaluator import Evaluator
from workers.inspection import describe_groups
from workers.plan import make_searcher, make_space
from workers.spec import JobSpec

CONTROLS = ("uniform", "random")


class Block(nn.Module):
    """A basic block; where the stage changes its shortcut takes every second pixel and pads the channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = 0 if stride == 1 else outputs // 4

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x
        return functional.relu(y + shortcut)


class CifarResNet(nn.Module):
    """``depth = 6n + 2``; takes images in 0…1 and normalises them itself."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage in (1, 2, 3):
            blocks = []
            for index in range((depth - 2) // 6):
                outputs = 8 * 2**stage
                blocks.append(Block(inputs, outputs, 2 if stage > 1 and index == 0 else 1))
                inputs = outputs
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def export_cifar_resnet(weights: Path, path: Path) -> None:
    """Writes the network of a weight file as the ``.pt2`` that the service takes."""
    state = {name: tensor for name, tensor in load_file(weights).items() if not name.endswith("num_batches_tracked")}
    depth = 2 + 2 * sum(name.startswith("layer") and name.endswith("conv1.weight") for name in state)
    model = CifarResNet(depth)
    missing = set(model.state_dict()) - set(state)
    if {name for name in missing if not name.endswith("num_batches_tracked")} or set(state) - set(model.state_dict()):
        raise SystemExit(f"{weights} does not hold a CIFAR ResNet with option-A shortcuts.")
    model.load_state_dict(state, strict=False)
    export_model(model, torch.zeros(2, 3, 32, 32), path)


def run(model: Path, data: Path, searcher: str, ratio: float, seed: int, max_trials: int) -> dict[str, object]:
    """One search and the test accuracy of the network it found."""
    spec = JobSpec.model_validate(
        {"budget": {"ratio": ratio}, "searcher": {"name": searcher}, "limits": {"max_trials": max_trials}, "seed": seed}
    )
    splits = load(data, seed)
    evaluator = Evaluator(model, splits, spec)
    space = make_space(describe_groups(evaluator.dense, evaluator.coupling), evaluator.coupling.cost, spec)
    machine = make_searcher(space, spec)
    start, best, trials = time.perf_counter(), (float("-inf"), space.least), 0
    while not isinstance(proposal := machine.ask(), Done):
        assert isinstance(proposal, Proposal)  # with nothing running a searcher never waits
        outcome = evaluator.evaluate(proposal.widths)
        machine.tell(proposal.id, outcome)
        trials += 1
        if outcome.score is not None and space.fits(proposal.widths):
            best = max(best, (outcome.score, proposal.widths))
    seconds = time.perf_counter() - start
    network = evaluator.prune(best[1]).network
    return {
        "searcher": searcher,
        "ratio": ratio,
        "seed": seed,
        "trials": trials,
        "seconds": round(seconds, 1),
        "score": best[0],
        "accuracy": evaluator.quality(network, splits.test).accuracy,
        "dense_accuracy": evaluator.quality(evaluator.dense, splits.test).accuracy,
        "achieved_ratio": space.cost(best[1]) / space.cost(space.dense),
        "widths": dict(zip([group.name for group in space.groups], best[1], strict=True)),
    }


def table(results: list[dict[str, object]]) -> Table:
    """Mean and range of the test accuracy per searcher and budget."""
    shown = Table(title="Test accuracy after BatchNorm recalibration, no fine-tuning: mean (least … most) over seeds")
    ratios = sorted({float(str(result["ratio"])) for result in results}, reverse=True)
    for column in ("searcher", *[f"{ratio:.0%} of MACs" for ratio in ratios]):
        shown.add_column(column)
    for searcher in dict.fromkeys(str(result["searcher"]) for result in results):
        cells = []
        for ratio in ratios:
            found = [float(str(r["accuracy"])) for r in results if r["searcher"] == searcher and r["ratio"] == ratio]
            cells.append(f"{statistics.mean(found):.1%} ({min(found):.1%} … {max(found):.1%})" if found else "")
        shown.add_row(searcher, *cells)
    return shown


def plot(results: list[dict[str, object]], path: Path) -> None:
    """Accuracy against MACs: a point per seed, a line through the means."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    dense = float(str(results[0]["dense_accuracy"]))
    axes.plot([100], [100 * dense], "ko", label="dense")
    for searcher in dict.fromkeys(str(result["searcher"]) for result in results):
        own = [result for result in results if result["searcher"] == searcher]
        points = [(100 * float(str(r["achieved_ratio"])), 100 * float(str(r["accuracy"]))) for r in own]
        means = [
            [
                statistics.mean(float(str(r[key])) * 100 for r in own if r["ratio"] == ratio)
                for key in ("achieved_ratio", "accuracy")
            ]
            for ratio in sorted({float(str(r["ratio"])) for r in own})
        ]
        (line,) = axes.plot(*zip(*means, (100, 100 * dense), strict=True), label=searcher)
        axes.plot(*zip(*points, strict=True), "o", color=line.get_color(), alpha=0.5)
    axes.set(xlabel="MACs, % of dense", ylabel="test accuracy, %", title="ResNet-20 on CIFAR-10, no fine-tuning")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, help="a .safetensors of a CIFAR ResNet")
    parser.add_argument("--searchers", nargs="+", default=[*CONTROLS, "netadapt"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.7, 0.5], help="of the dense network's MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-trials", type=int, default=120, help="of each search; netadapt's ten rounds take 120 here")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    parser.add_argument("--plot", type=Path, help="where to draw them, as .svg or .png")
    parser.add_argument("--results", type=Path, help="draw and print these results of an earlier --output, measure nothing")
    arguments = parser.parse_args()
    if not arguments.results and not (arguments.data and arguments.weights):
        parser.error("give --data and --weights to measure, or --results to draw what was measured before")
    console = Console()
    results = json.loads(arguments.results.read_text()) if arguments.results else measure(arguments, console)
    console.print(table(results))
    if arguments.plot:
        plot(results, arguments.plot)


def measure(arguments: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """Every search of every seed; each result is written out as soon as it is there."""
    torch.set_num_threads(1)
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.pt2"
        export_cifar_resnet(arguments.weights, model)
        for seed in arguments.seeds:
            for ratio in arguments.ratios:
                for searcher in arguments.searchers:
                    found = run(model, arguments.data, searcher, ratio, seed, arguments.max_trials)
                    results.append(found)
                    console.print({key: value for key, value in found.items() if key != "widths"})
                    if arguments.output:
                        arguments.output.write_text(json.dumps(results, indent=1))
    return results


if __name__ == "__main__":
    main()
