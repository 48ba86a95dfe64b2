"""Every searcher against its controls on pretrained CIFAR ResNets, at equal MACs and equal trials, without fine-tuning.

    python -m benchmarks.search --data cifar10.npz --weights resnet20.safetensors resnet56.safetensors

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. The search sees images held out of the training split; test
images are used once per searched network. A seed decides which images are held out, and what a search draws.

Each result is a line appended to ``--output`` as soon as it is there, and what is there is not measured again: the
benchmark can be stopped at any time, and several processes can share it by ``--searchers``, ``--ratios`` or ``--seeds``. Each
is one process of one thread, without Ray. ``--correlation`` measures how well the search score foretells accuracy after a short
fine-tune: the random control's first plans at half of the MACs are each trained for an epoch. Without ``--data``, what was
measured is printed and drawn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import walk
from benchmarks.cifar import export_cifar_resnet
from benchmarks.report import keep, kept
from searchers import SEARCHERS
from searchers.base import Proposal, Searcher
from workers.data import load
from workers.evaluator import Evaluator
from workers.plan import make_searcher
from workers.spec import JobSpec
from workers.training import short_tune

CONTROLS = ("uniform", "random")
_APART = ("fixed", "autocompress")  # searches nothing; trains
CORRELATION = "correlation"  # takes the place of a searcher in a result that is about the score, not about a search
_BATCHNORM_ALONE = ", BatchNorm alone"  # behind the network's name, since trials score otherwise then
_TUNED = 24  # plans: with 20, a correlation of 0.45 is just significant at 0.05
_TUNED_RATIO = 0.5
_TUNING_EPOCHS = 1

Result = dict[str, Any]


class Setting:
    """One network, budget and seed: where all searchers of a row meet.

    Args:
        model: the ``.pt2`` file.
        data: the ``.npz`` file.
        ratio: of the dense network's MACs.
        seed: of the held-out images and of the searches.
        trials: of a search.
        least_squares: whether the layers of every cut network make up for lost inputs, as they do by default.
    """

    def __init__(self, model: Path, data: Path, ratio: float, seed: int, trials: int, least_squares: bool = True) -> None:
        self._stated = {
            "budget": {"ratio": ratio},
            "recovery": {"least_squares": least_squares},
            "limits": {"max_trials": trials},
            "seed": seed,
        }
        self._splits = load(data, seed)
        spec = JobSpec.model_validate(self._stated)
        self.evaluator = Evaluator(model, self._splits, spec)
        self.space = self.evaluator.space()

    def searcher(self, name: str, params: dict[str, Any] | None = None) -> Searcher:
        """A fresh searcher; what ``params`` does not say is as by default."""
        stated = {**self._stated, "searcher": {"name": name, "params": params or {}}}
        return make_searcher(self.space, JobSpec.model_validate(stated))

    def search(self, name: str, params: dict[str, Any]) -> Result:
        """One search and the test accuracy of the network it found."""
        found = walk.search(self.searcher(name, params), self.evaluator, self.space)
        return {
            "tried": found.trials,
            "seconds": round(found.seconds, 1),
            "thinking": round(found.thinking, 1),
            "score": round(found.score, 4),
            "accuracy": self._accuracy(found.pruned.network),
            "dense_accuracy": self._accuracy(self.evaluator.dense),
            "achieved_ratio": self.space.cost(found.widths) / self.space.cost(self.space.dense),
            "widths": list(found.widths),
        }

    def correlation(self) -> Result:
        """How the random control's plans score, and how accurate they are before and after a short fine-tune."""
        scores, before, after = [], [], []
        machine = self.searcher("random")
        for _ in range(_TUNED):
            proposal = machine.ask()
            assert isinstance(proposal, Proposal)
            outcome, pruned = self.evaluator.evaluate_keeping(proposal.widths)
            assert pruned is not None
            scores.append(outcome.score)
            before.append(self._accuracy(pruned.network))
            trainer = self.evaluator.trainer(pruned)
            short_tune(trainer, _TUNING_EPOCHS * trainer.steps)
            after.append(self._accuracy(pruned.network))
        return {"scores": scores, "accuracy": before, "tuned_accuracy": after}

    def _accuracy(self, network: torch.fx.GraphModule) -> float:
        return self.evaluator.quality(network, self._splits.test).metric


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The rank correlation, −1…1; equal values share their mean rank."""

    def ranks(values: Sequence[float]) -> NDArray[np.float64]:
        at = np.array(values)
        return np.array([((at < value).sum() + (at <= value).sum()) / 2 for value in at])

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def tables(results: Sequence[Result]) -> Iterable[Table]:
    """Per network, mean and range of the test accuracy by searcher and budget, the best search first."""
    for network in sorted({r["network"] for r in results}):
        searched = [r for r in results if r["network"] == network and r["searcher"] != CORRELATION]
        ratios = sorted({r["ratio"] for r in searched}, reverse=True)
        dense = statistics.mean(r["dense_accuracy"] for r in searched)
        trials = "/".join(map(str, sorted({r["trials"] for r in searched})))
        shown = Table(
            title=f"{network}: test accuracy in %, mean (least … most) over seeds; dense {dense:.1%}, {trials} trials"
        )
        for column in ("searcher", *[f"{ratio:.0%} of MACs" for ratio in ratios], "seconds", "of them thinking"):
            shown.add_column(column, justify="left" if column == "searcher" else "right")
        by_searcher = {name: [r for r in searched if r["searcher"] == name] for name in {r["searcher"] for r in searched}}
        for name, own in sorted(by_searcher.items(), key=lambda item: -statistics.mean(r["accuracy"] for r in item[1])):
            cells = []
            for ratio in ratios:
                found = [100 * r["accuracy"] for r in own if r["ratio"] == ratio]
                cells.append(f"{statistics.mean(found):.1f} ({min(found):.1f} … {max(found):.1f})" if found else "")
            shown.add_row(name, *cells, *[f"{statistics.mean(r[key] for r in own):.0f}" for key in ("seconds", "thinking")])
        yield shown


def correlations(results: Sequence[Result]) -> Iterable[str]:
    """What the score foretells, a line per network and seed."""
    for r in (r for r in results if r["searcher"] == CORRELATION):
        tuned = spearman(r["scores"], r["tuned_accuracy"])
        accurate = spearman(r["accuracy"], r["tuned_accuracy"])
        yield (
            f"{r['network']}, seed {r['seed']}: Spearman correlation with test accuracy after {_TUNING_EPOCHS} epoch over "
            f"{len(r['scores'])} plans at {r['ratio']:.0%}: {tuned:.2f} of the search score, {accurate:.2f} of accuracy before"
        )


def plot(results: Sequence[Result], path: Path) -> None:
    """A row per network, a column per budget, a line per searcher, the best on top: a point per seed, a bar to their mean."""
    from matplotlib import pyplot

    searched = [r for r in results if r["searcher"] != CORRELATION]
    networks, ratios = sorted({r["network"] for r in searched}), sorted({r["ratio"] for r in searched}, reverse=True)
    pyplot.rcParams["svg.hashsalt"] = "secateur"  # the same picture, byte by byte, from the same results
    size = (4.8 * len(ratios), 3.0 * len(networks))
    figure, grid = pyplot.subplots(len(networks), len(ratios), figsize=size, squeeze=False, layout="constrained")
    for axes, (network, ratio) in zip(grid.flat, product(networks, ratios), strict=True):
        here = [r for r in searched if (r["network"], r["ratio"]) == (network, ratio)]
        if not here:
            axes.set_axis_off()
            continue
        found = {name: [100 * r["accuracy"] for r in here if r["searcher"] == name] for name in {r["searcher"] for r in here}}
        names = sorted(found, key=lambda name: statistics.mean(found[name]))
        colours = ["tab:grey" if name in CONTROLS else "tab:blue" for name in names]
        axes.barh(names, [statistics.mean(found[name]) for name in names], color=colours, alpha=0.4)
        for name, colour in zip(names, colours, strict=True):
            axes.plot(found[name], [name] * len(found[name]), "o", color=colour, markersize=4)
        axes.axvline(100 * statistics.mean(r["dense_accuracy"] for r in here), color="black", linestyle=":")
        axes.set(xlabel="test accuracy, % (dotted: dense)", title=f"{network}\n{ratio:.0%} of its MACs")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def measure(arguments: argparse.Namespace, console: Console) -> None:
    """Every cell that is not there yet."""
    torch.set_num_threads(1)
    names = [CORRELATION] if arguments.correlation else arguments.searchers
    ratios = [_TUNED_RATIO] if arguments.correlation else arguments.ratios
    with tempfile.TemporaryDirectory() as folder:
        for weights in arguments.weights:
            model = Path(folder) / f"{weights.stem}.pt2"
            export_cifar_resnet(weights, model)
            for seed in arguments.seeds:
                for ratio in ratios:
                    setting = None
                    for name in names:
                        cell = {
                            "network": weights.stem + (_BATCHNORM_ALONE if arguments.batchnorm_alone else ""),
                            "ratio": ratio,
                            "seed": seed,
                            "trials": _TUNED if arguments.correlation else arguments.trials,
                            "searcher": " ".join([name, *(f"{key}={value}" for key, value in arguments.params.items())]),
                        }
                        if any(cell.items() <= result.items() for result in kept(arguments.output)):
                            continue
                        setting = setting or Setting(
                            model, arguments.data, ratio, seed, cell["trials"], not arguments.batchnorm_alone
                        )
                        measured = setting.correlation() if arguments.correlation else setting.search(name, arguments.params)
                        found = {**cell, **measured}
                        keep(found, arguments.output)
                        console.print({key: value for key, value in found.items() if not isinstance(value, list)})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, nargs="+", default=[], help=".safetensors of CIFAR ResNets")
    parser.add_argument("--searchers", nargs="+", default=[name for name in SEARCHERS if name not in _APART])
    parser.add_argument("--params", type=json.loads, default={}, help="of each of them as JSON; they stand in the results")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5, 0.7, 0.3], help="of the dense network's MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=100, help="of each search")
    parser.add_argument("--batchnorm-alone", action="store_true", help="without recovery.least_squares in any trial")
    parser.add_argument("--correlation", action="store_true", help="measure what the score foretells, and no search")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/search.jsonl"), help="where results are kept")
    parser.add_argument("--plot", type=Path, help="where to draw them, as .svg or .png")
    arguments = parser.parse_args()
    if bool(arguments.data) != bool(arguments.weights):
        parser.error("give --data and --weights to measure, or neither to print what was measured before")
    console = Console()
    if arguments.data:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        measure(arguments, console)
    results = kept(arguments.output)
    for table in tables(results):
        console.print(table)
    for line in correlations(results):
        console.print(line, soft_wrap=True)
    if arguments.plot:
        plot([result for result in results if result["ratio"] in arguments.ratios], arguments.plot)


if __name__ == "__main__":
    main()
