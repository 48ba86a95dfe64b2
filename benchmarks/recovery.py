"""What is left of a search's lead once the networks are trained: found plans and uniform ones, by the same recipe.

    python -m benchmarks.recovery --data cifar10.npz --weights resnet20.safetensors --epochs 10

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. The plans are those that ``benchmarks.search`` found and wrote
into ``--plans``, the uniform control among them, each trained as a job's winner is (``recovery.final_epochs``). What was best
on the search split is measured on the test images. A seed decides which images are held out, and the order of training.

Each result is a line appended to ``--output`` as soon as it is there, and what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cifar import export_cifar_resnet
from benchmarks.report import keep, kept
from workers.data import load
from workers.evaluator import Evaluator
from workers.fine_tuning import FineTuning
from workers.spec import JobSpec

Result = dict[str, Any]


def train(model: Path, data: Path, plan: Result, epochs: int, recipe: dict[str, Any]) -> Result:
    """One plan's accuracy on the test images before and after, and how far it is from the dense network there."""
    recovery = {"final_epochs": epochs, "recipe": recipe}
    spec = JobSpec.model_validate({"budget": {"ratio": plan["ratio"]}, "recovery": recovery, "seed": plan["seed"]})
    splits = load(data, plan["seed"])
    evaluator = Evaluator(model, splits, spec)
    pruned = evaluator.prune(plan["widths"])
    network, start = pruned.network, time.process_time()
    before = evaluator.quality(network, splits.test)
    with tempfile.TemporaryDirectory() as folder:
        FineTuning(
            network,
            evaluator.trainer(pruned),
            evaluator.quality,
            splits.search,
            evaluator.passes.objective,
            spec.recovery,
            Path(folder) / "0.tuned",
            lambda message, **_: print(f"{plan['searcher']}, seed {plan['seed']}: {message}", flush=True),
        ).run()
    after = evaluator.quality(network, splits.test)
    return {
        "before": before.metric,
        "after": after.metric,
        "divergence_before": round(before.divergence, 4),
        "divergence": round(after.divergence, 4),
        "seconds": round(time.process_time() - start, 1),
    }


def tables(results: Sequence[Result]) -> Iterable[Table]:
    """Per network, epochs and recipe, the drop on the test images by searcher and budget: mean, least and greatest."""
    for setting in sorted({(r["network"], r["epochs"], json.dumps(r["recipe"])) for r in results}):
        network, epochs, recipe = setting
        own = [r for r in results if (r["network"], r["epochs"], json.dumps(r["recipe"])) == setting]
        dense = statistics.mean(r["dense_accuracy"] for r in own)
        ratios = sorted({r["ratio"] for r in own}, reverse=True)
        shown = Table(title=f"{network}: points lost after {epochs} epochs by {recipe}; dense {dense:.1%}")
        for column in ("searcher", *[f"{ratio:.0%} of MACs" for ratio in ratios], "seconds"):
            shown.add_column(column, justify="left" if column == "searcher" else "right")
        for name in sorted({r["searcher"] for r in own}):
            cells = []
            for ratio in ratios:
                found = [r for r in own if (r["searcher"], r["ratio"]) == (name, ratio)]
                lost = [100 * (r["dense_accuracy"] - r["after"]) for r in found]
                cells.append(f"{statistics.mean(lost):.2f} ({min(lost):.2f} … {max(lost):.2f}, {len(lost)})" if lost else "")
            shown.add_row(name, *cells, f"{statistics.mean(r['seconds'] for r in own if r['searcher'] == name):.0f}")
        yield shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, nargs="+", default=[], help=".safetensors of CIFAR ResNets")
    parser.add_argument("--plans", type=Path, default=Path("benchmarks/results/search.jsonl"), help="that were found")
    parser.add_argument("--searchers", nargs="+", default=["auto", "uniform"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5], help="of the dense network's MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--recipe", type=json.loads, default={}, help="recovery.recipe as JSON")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recovery.jsonl"), help="where results are kept")
    arguments = parser.parse_args()
    if bool(arguments.data) != bool(arguments.weights):
        parser.error("give --data and --weights to measure, or neither to print what was measured before")
    torch.set_num_threads(1)
    console = Console()
    for weights in arguments.weights:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model.pt2"
            export_cifar_resnet(weights, model)
            for plan in kept(arguments.plans):
                chosen = (plan["searcher"] in arguments.searchers, plan["ratio"] in arguments.ratios)
                if plan["network"] != weights.stem or not all(chosen) or plan["seed"] not in arguments.seeds:
                    continue
                cell = {key: plan[key] for key in ("network", "ratio", "seed", "searcher", "widths", "dense_accuracy")}
                cell |= {"epochs": arguments.epochs, "recipe": arguments.recipe}
                if any(cell.items() <= result.items() for result in kept(arguments.output)):
                    continue
                found = {**cell, **train(model, arguments.data, plan, arguments.epochs, arguments.recipe)}
                keep(found, arguments.output)
                console.print({key: value for key, value in found.items() if key != "widths"})
    for table in tables(kept(arguments.output)):
        console.print(table)


if __name__ == "__main__":
    main()
