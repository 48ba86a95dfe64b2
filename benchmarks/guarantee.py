"""How often a job's guarantee holds: the smallest network within a drop, on images that neither search nor confirmation saw.

    python -m benchmarks.guarantee --output results.json

The handwritten digits and the small ResNet of the demo. Of the 1,797 images 400 are apart: no part of the job sees them. Of the
others ``--confirm`` are the test split, and the rest is for training and, a fifth of it, to search on. Each seed draws
another split, and trains another dense network. Beside the search the uniform plan at the same cost, trained as long.
One process, one thread, no Ray; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from benchmarks import walk
from pruners.errors import JobFailed
from searchers.base import Training
from searchers.guarantee import Guaranteed
from searchers.space import Budget
from searchers.uniform import uniform_plan
from service.client.export import export_model
from service.demo.digits import Arrays, train_network
from tests.workers.logs import ListLog
from workers.data import Split, load
from workers.evaluator import Evaluator
from workers.finish import Finish
from workers.plan import make_searcher
from workers.spec import JobSpec

_APART = 400  # images


@dataclass(frozen=True)
class Result:
    """One seed; what is ``None`` was not found, since no network was confirmed."""

    seed: int
    allowed: float
    dense: float
    cost: float | None
    bound: float | None
    test_drop: float | None
    apart_drop: float | None
    uniform_apart_drop: float | None
    confirmed: int
    sizes: int
    trials: int
    seconds: float


def split(seed: int, confirm: int) -> tuple[Arrays, Split]:
    """The job's arrays, and the images apart."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    x = (digits.images[order, None] / 16).astype(np.float32)  # the images hold 0…16
    y = digits.target[order].astype(np.int64)
    test, train = slice(_APART, _APART + confirm), slice(_APART + confirm, None)
    arrays: Arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return arrays, Split(x[:_APART], y[:_APART])


def run(seed: int, allowed: float, confirm: int, searcher: str, trials: int, epochs: int, folder: Path) -> Result:
    """One job."""
    arrays, apart = split(seed, confirm)
    np.savez(folder / "data.npz", allow_pickle=False, **arrays)
    torch.manual_seed(seed)
    model = export_model(train_network(arrays), torch.tensor(arrays["x_train"][:2]), folder / "model.pt2")
    spec = JobSpec.model_validate(
        {
            "constraint": {"max_metric_drop": allowed},
            "searcher": {"name": searcher},
            "recovery": {"final_epochs": epochs},
            "limits": {"max_trials": trials},
            "seed": seed,
        }
    )
    start = time.process_time()
    splits = load(folder / "data.npz", seed)
    evaluator = Evaluator(model, splits, spec)
    space = evaluator.space()
    search = make_searcher(space, spec)
    assert isinstance(search, Guaranteed)
    walked = walk.search(search, evaluator, space)
    networks = {
        number: evaluator.prune(p.widths, training=p.training)
        for number, p in search.proposals.items()
        if number in search.ladder
    }
    finish = Finish(spec, evaluator, space, splits, networks.__getitem__, None, folder, folder, ListLog())
    kept = []
    with suppress(JobFailed):
        kept = finish.confirmed([search.proposals[number] for number in search.ladder])
    seconds = time.process_time() - start

    def drop(network: torch.fx.GraphModule) -> float:
        before, after = (evaluator.quality(module, apart).metric for module in (evaluator.dense, network))
        return before - after

    found = (None,) * 5
    if kept:
        cost = space.cost(kept[-1].winner.widths)
        drops = kept[-1].quality.drops
        assert drops is not None
        plan = uniform_plan(space.under(Budget(space.budget.metric, cost)))
        control = evaluator.prune(plan, training=Training(None, retrain=epochs))
        found = (
            cost / space.cost(space.dense),
            kept[-1].bound,
            float(drops.mean()),
            drop(kept[-1].pruned.network),
            drop(control.network),
        )
    dense = evaluator.quality(evaluator.dense, splits.test).metric
    return Result(seed, allowed, dense, *found, len(kept), len(search.settled), walked.trials, seconds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allowed", type=float, default=0.01, help="constraint.max_metric_drop")
    parser.add_argument("--confirm", type=int, default=800, help="test images, which confirm")
    parser.add_argument("--searcher", default="auto")
    parser.add_argument("--max-trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10, help="recovery.final_epochs")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results, console = list[Result](), Console()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(
                run(
                    *(seed, arguments.allowed, arguments.confirm, arguments.searcher),
                    *(arguments.max_trials, arguments.epochs, Path(folder)),
                )
            )
        console.print(results[-1])
        if arguments.output is not None:
            arguments.output.write_text(json.dumps([asdict(result) for result in results], indent=1))
    table = Table(
        "seed", "dense", "MACs kept", "bound", "drop, test", "drop, apart", "uniform, apart", "confirmed", "trials", "seconds"
    )
    for r in results:
        shares = [
            "none" if value is None else f"{value:.2%}"
            for value in (r.cost, r.bound, r.test_drop, r.apart_drop, r.uniform_apart_drop)
        ]
        table.add_row(str(r.seed), f"{r.dense:.2%}", *shares, f"{r.confirmed}", f"{r.trials}", f"{r.seconds:.0f}")
    console.print(table)
    held = sum(r.apart_drop is not None and r.apart_drop <= r.allowed for r in results)
    console.print(f"{held} of {len(results)} keep it on images that nobody saw.")


if __name__ == "__main__":
    main()
