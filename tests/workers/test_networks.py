"""Trials that start from what other trials trained: nested cuts, the same training again, files that come and go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from searchers.base import Proposal, Training
from workers.data import load
from workers.evaluator import Evaluator
from workers.networks import Networks
from workers.pruned import Pruned
from workers.spec import JobSpec

STEPS = 5


def make(files: tuple[Path, Path], pruner: str = "l1", **recovery: object) -> Evaluator:
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "pruner": {"name": pruner}, "recovery": recovery})
    return Evaluator(files[0], load(files[1], 0), spec)


@pytest.fixture(scope="module")
def trains(files: tuple[Path, Path]) -> Evaluator:
    return make(files, short_steps=STEPS)


def share(evaluator: Evaluator, part: float) -> list[int]:
    return [round(group.width * part) for group in evaluator.coupling.prunable]


def alike(first: Pruned, second: Pruned) -> bool:
    one, other = first.network.state_dict(), second.network.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("pruner", ["l1", "random", "taylorfo"])
def test_a_child_keeps_some_of_what_its_parent_kept(pruner: str, files: tuple[Path, Path]) -> None:
    evaluator = make(files, pruner, short_steps=STEPS)
    parent = evaluator.prune(share(evaluator, 0.75))
    widths = share(evaluator, 0.5)
    child = evaluator.prune(widths, parent)
    assert all(set(few) < set(many) for few, many in zip(child.keep, parent.keep, strict=True))
    assert [len(kept) for kept in child.keep] == widths
    assert sum(p.numel() for p in child.network.parameters()) == evaluator.coupling.cost("params", widths)
    assert (parent.steps, child.steps) == (STEPS, 2 * STEPS)


def test_a_child_starts_from_its_parents_weights(files: tuple[Path, Path]) -> None:
    evaluator, bare = make(files, short_steps=STEPS), make(files)
    parent = evaluator.prune(share(evaluator, 0.75))
    child = bare.prune(share(bare, 0.5), parent)
    conv = "conv.weight"  # its inputs are the image, so that only outputs went
    kept = np.searchsorted(parent.keep[0], child.keep[0])
    assert torch.equal(child.network.state_dict()[conv], parent.network.state_dict()[conv][kept])
    assert child.steps == STEPS, "not trained any more"


def test_short_training_helps_and_is_the_same_every_time(trains: Evaluator, files: tuple[Path, Path]) -> None:
    widths = share(trains, 0.5)
    outcome, pruned = trains.evaluate_keeping(widths)
    cut = make(files).evaluate(widths)
    assert outcome.score is not None
    assert cut.score is not None
    assert outcome.score > cut.score
    assert pruned is not None
    torch.rand(1)  # whatever this process has drawn
    assert alike(trains.prune(widths), pruned)


def test_training_goes_on_with_other_images(trains: Evaluator) -> None:
    parent = trains.prune(share(trains, 0.75))
    unaware = Pruned(parent.network, parent.keep)  # as if its training had not been
    widths = share(trains, 0.5)
    assert not alike(trains.prune(widths, parent), trains.prune(widths, unaware))


def test_a_channel_that_is_lost_stays_lost(trains: Evaluator) -> None:
    parent = trains.prune(share(trains, 0.5))
    outcome, _ = trains.evaluate_keeping(share(trains, 0.75), parent)
    assert outcome.score is None
    assert outcome.error == "ValueError: conv has 8 channels left and cannot keep 12"


def test_a_schedule_trains_what_its_parent_left(files: tuple[Path, Path]) -> None:
    evaluator = make(files)
    parent = evaluator.prune(share(evaluator, 0.75))
    reports: list[str] = []
    training = Training("admm", (("iterations", 2), ("epochs", 1)), retrain=1)
    child = evaluator.prune(share(evaluator, 0.5), parent, training, reports.append)
    assert len(reports) == 2
    assert all(set(few) < set(many) for few, many in zip(child.keep, parent.keep, strict=True))
    assert child.steps == 3 * evaluator.trainer(child).steps


def test_networks_are_kept_found_again_and_made_again(trains: Evaluator, tmp_path: Path) -> None:
    first, second = tuple(share(trains, 0.75)), tuple(share(trains, 0.5))
    proposals = {0: Proposal(0, first), 1: Proposal(1, second, parent=0)}
    parent = trains.prune(first)
    child = trains.prune(second, parent)
    networks = Networks(tmp_path / "of a job", trains, proposals, print)
    networks.put(0, parent.state())
    networks.put(1, child.state())
    later = Networks(tmp_path / "of a job", trains, proposals, print)  # of another attempt
    assert alike(later.get(1), child)
    assert later.get(1).steps == 2 * STEPS
    assert alike(later.get(0), parent)
    later.keep_only({1})
    assert [file.name for file in (tmp_path / "of a job").iterdir()] == ["1.pt"]
    elsewhere = Networks(tmp_path / "none left", trains, proposals, print)
    assert alike(elsewhere.get(1), child), "its parent and itself trained as they were"
