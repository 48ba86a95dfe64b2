"""What rounds of NetAdapt cost with every candidate evaluated whole, with shared parts run once, with racing, and with both.

    python -m benchmarks.rounds --data cifar10.npz --weights resnet20.safetensors --images 2048 --output rounds.json

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. As in the paper every group is tried in every round. An
image-forward is one image through the whole network; through some of its parts it counts in proportion, recalibration
included. A seed decides which images are held out of the training split to search on, as many as ``--images`` says. All on
one thread; CPU time includes what racing and sharing cost themselves.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.cifar import command_line, exported, held_out
from benchmarks.report import report
from pruners.graph.chain import chain
from searchers.base import Outcome, Proposal
from searchers.netadapt import NetAdapt, NetAdaptParams
from searchers.space import Widths
from workers.data import EVALUATION_BATCH
from workers.evaluator import Evaluator
from workers.passes import PREFIX_BYTES, Passes, Race
from workers.pruned import Pruned
from workers.spec import JobSpec

Evaluated = tuple[Outcome, Pruned | None]

_ROUNDS = 8
_CONFIDENCE = 0.99
_SHARED = 4 * PREFIX_BYTES  # enough for 2,048 images
_WAYS = {"whole": (None, 0), "shared parts": (None, _SHARED), "racing": (_CONFIDENCE, 0), "both": (_CONFIDENCE, _SHARED)}


def measure(model: Path, data: Path, images: int, seed: int, rounds: int, least_squares: bool) -> dict[str, Any]:
    """By way the image-forwards, CPU seconds and winner of each round, which starts where the last whole one ended."""
    torch.set_num_threads(1)
    splits = held_out(data, images, seed)
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "recovery": {"least_squares": least_squares}, "seed": seed})
    evaluator = Evaluator(model, splits, spec)
    space = evaluator.space()
    known: dict[Widths, Evaluated] = {}  # what came of the candidates of rounds that were run whole
    found: dict[str, list[dict[str, Any]]] = {}
    for way, (racing, prefix_bytes) in _WAYS.items():
        params = NetAdaptParams(winners=1, candidates=len(space.groups), rounds=_ROUNDS, racing=racing)
        passes = evaluator.passes = Passes(evaluator.dense, splits, spec.recovery.batchnorm_images, prefix_bytes)
        evaluator.quality(evaluator.dense, splits.search)
        found[way] = []
        for number in range(rounds):
            run = Run(NetAdapt(space, params, seed, 10_000))
            for _ in range(number):
                run.round(lambda proposal, _, known=known: known[proposal.widths])
            before, start = _forwards(passes, evaluator), time.process_time()
            tried = run.round(lambda proposal, race: evaluator.evaluate_keeping(proposal.widths, race=race))
            seconds, forwards = time.process_time() - start, _forwards(passes, evaluator) - before
            found[way].append({"forwards": forwards, "seconds": seconds, "left": list(run.machine.base)})
            if way == "whole":
                known |= tried
    return {"seed": seed, "groups": len(space.searchable), "rounds": found}


class Run:
    """A search that is run round by round."""

    def __init__(self, machine: NetAdapt) -> None:
        self.machine = machine
        self._next = machine.ask()
        self._losses: dict[int, Any] = {}

    def round(self, evaluate: Callable[[Proposal, Race | None], Evaluated]) -> dict[Widths, Evaluated]:
        """To the end of this round, when the machine knows its winner; what came of each candidate."""
        tried, base = {}, self.machine.base
        while self.machine.base == base:
            proposal = self._next
            assert isinstance(proposal, Proposal)
            rival = proposal.rival
            race = None if rival is None else Race(self._losses[rival.number], rival.bar, rival.confidence)
            outcome, pruned = tried[proposal.widths] = evaluate(proposal, race)
            assert pruned is not None
            self._losses[proposal.id] = pruned.losses
            self.machine.tell(proposal.id, outcome)
            self._next = self.machine.ask()
        return tried


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """By way, how many times less it takes than the first way, and how often a round has the same winner."""
    shown: dict[str, Any] = {}
    for way in _WAYS:
        pairs = [pair for each in results for pair in zip(each["rounds"]["whole"], each["rounds"][way], strict=True)]
        shown[way] = {
            "forwards": round(statistics.median(one["forwards"] for _, one in pairs), 0),
            "times_fewer_forwards": round(statistics.median(whole["forwards"] / one["forwards"] for whole, one in pairs), 2),
            "least_times_fewer": round(min(whole["forwards"] / one["forwards"] for whole, one in pairs), 2),
            "times_less_cpu": round(statistics.median(whole["seconds"] / one["seconds"] for whole, one in pairs), 2),
            "same_winners": sum(whole["left"] == one["left"] for whole, one in pairs),
            "rounds": len(pairs),
        }
    return shown


def _forwards(passes: Passes, evaluator: Evaluator) -> float:
    """Batches are of the same number of images."""
    parts = passes.calibration.run_parts + passes.searched.run_parts
    return parts * EVALUATION_BATCH / len(chain(evaluator.dense))


def main() -> None:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=4, help=f"to run, of the {_ROUNDS} down to half of the MACs")
    parser.add_argument("--images", type=int, default=512, help="to search on")
    parser.add_argument("--least-squares", action="store_true", help="with recovery.least_squares in every trial")
    arguments = parser.parse_args()
    with exported(arguments.weights) as model:
        results = [
            measure(model, arguments.data, arguments.images, seed, arguments.rounds, arguments.least_squares)
            for seed in arguments.seeds
        ]
    found = summary(results)
    groups = results[0]["groups"]
    shown = Table(title=f"{arguments.weights.stem}: a round of NetAdapt, {groups} groups, medians over seeds and rounds")
    for column in ("", "image-forwards", "times fewer", "(least)", "times less CPU", "same winners"):
        shown.add_column(column, justify="right" if column else "left")
    for way, row in found.items():
        same = f"{row['same_winners']} of {row['rounds']}"
        cells = (row["times_fewer_forwards"], row["least_times_fewer"], row["times_less_cpu"])
        shown.add_row(way, f"{row['forwards']:,.0f}", *(f"{cell:.2f}" for cell in cells), same)
    report(shown, {"network": arguments.weights.stem, "summary": found, "results": results}, arguments.output)


if __name__ == "__main__":
    main()
