"""What is spared by starting networks behind the parts that they share changes no score, and keeps to its memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruners.graph.shrink import shrink
from service.client.export import export_model
from tests.networks import CifarResNet, randomise
from workers.data import Split, Splits
from workers.evaluator import Evaluator
from workers.passes import Passes, Race
from workers.spec import JobSpec


class Inplace(nn.Module):
    """Writes into its input, into the outputs of its layers, and adds up where a part may begin."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        y = self.norm(self.first(x))
        y.add_(1)
        y = self.second(y.relu_())
        y.add_(0.25)
        return self.head(self.third(y.relu_()).relu_().mean((2, 3)))


def splits() -> Splits:
    draw = np.random.default_rng(0)
    train, search = (Split(draw.normal(size=(n, 3, 8, 8)).astype(np.float32), draw.integers(0, 5, n)) for n in (80, 150))
    return Splits(train, search, search)


def evaluator(model: nn.Module, folder: Path, prefix_bytes: int, **recovery: object) -> Evaluator:
    export_model(model, torch.zeros(2, 3, 8, 8), folder / "model.pt2")
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "recovery": {"batchnorm_images": 80, **recovery}})
    data = splits()
    made = Evaluator(folder / "model.pt2", data, spec)
    made.passes = Passes(made.dense, data, spec.recovery.batchnorm_images, prefix_bytes)
    return made


def round_of(dense: list[int]) -> list[list[int]]:
    """What a round of NetAdapt tries: one group cut in each."""
    return [[width // 2 if place == cut else width for place, width in enumerate(dense)] for cut in range(len(dense))]


@pytest.mark.parametrize("network", ["resnet", "in place"])
@pytest.mark.parametrize("recovery", [{}, {"least_squares": True}, {"batchnorm_images": 0}], ids=str)
def test_shared_parts_change_no_score(network: str, recovery: dict[str, object], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomise(CifarResNet(8, width=4) if network == "resnet" else Inplace())
    whole, sharing = (evaluator(model, tmp_path, limit, **recovery) for limit in (0, 2**26))
    plans = round_of([group.width for group in whole.coupling.prunable])
    for plan in (*plans, *plans[::-1]):
        assert whole.evaluate(plan) == sharing.evaluate(plan), "to the last digit"
    assert whole.passes.searched.spared_parts == 0
    assert sharing.passes.searched.spared_parts > (20 if network == "resnet" else 2)
    assert bool(sharing.passes.calibration.spared_parts) == ("batchnorm_images" not in recovery)


def test_a_network_that_shares_parts_is_left_with_the_same_statistics(tmp_path: Path) -> None:
    model = randomise(CifarResNet(8, width=4))
    whole, sharing = (evaluator(model, tmp_path, limit) for limit in (0, 2**26))
    plans = round_of([group.width for group in whole.coupling.prunable])
    for plan in plans:
        states = [each.prune(plan).network.state_dict() for each in (whole, sharing)]
        assert all(torch.equal(one, other) for one, other in zip(*(state.values() for state in states), strict=True))
    assert sharing.passes.calibration.spared_parts


def test_outputs_are_kept_within_the_limit(tmp_path: Path) -> None:
    some = evaluator(randomise(CifarResNet(8, width=4)), tmp_path, 80_000)  # those of the second stage take 76,800 bytes
    sizes = set()
    for plan in round_of([group.width for group in some.coupling.prunable]):
        some.evaluate(plan)
        kept = some.passes.searched._kept
        sizes.add(0 if kept is None else sum(tensor.nbytes for tensor in kept.outputs))
    assert len(sizes) > 1
    assert max(sizes) <= 80_000
    assert some.passes.searched.spared_parts, "the smaller ones of the later stages"


def test_other_splits_are_not_taken_for_the_search_images(tmp_path: Path) -> None:
    made = evaluator(randomise(CifarResNet(8, width=4)), tmp_path, 2**26)
    everything = [np.arange(len(group.classes)) for group in made.coupling.prunable]
    half = [kept[: len(kept) // 2] for kept in everything]
    data, small = splits(), shrink(made.dense, made.coupling, half)
    some = replace(data.test, x=data.test.x[:40], y=data.test.y[:40])
    assert made.passes.objective.name == "top1"  # which looks at the dense network's outputs on the search images
    before = made.passes.searched.run_parts
    first = [made.quality(small, some) for _ in range(3)]
    assert first[0] == first[1] == first[2]
    assert made.passes.searched.run_parts == before


def test_a_split_is_not_taken_for_one_that_is_gone(tmp_path: Path) -> None:
    passes, draw = evaluator(randomise(CifarResNet(8, width=4)), tmp_path, 0).passes, np.random.default_rng(1)
    for _ in range(20):  # a new object takes the address of one that was thrown away
        split = Split(draw.normal(size=(8, 3, 8, 8)).astype(np.float32), draw.integers(0, 5, 8))
        assert passes.quality(passes.dense, split).divergence == pytest.approx(0.0, abs=1e-6)
        del split


def test_who_cannot_win_is_given_up_early_and_its_estimate_stays_behind(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export_model(randomise(CifarResNet(8, width=4)), torch.zeros(2, 3, 8, 8), tmp_path / "model.pt2")
    draw = np.random.default_rng(1)
    search = Split(draw.normal(size=(700, 3, 8, 8)).astype(np.float32), draw.integers(0, 5, 700))
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}})
    made = Evaluator(tmp_path / "model.pt2", Splits(splits().train, search, search), spec)
    dense = [group.width for group in made.coupling.prunable]
    quarter, half = ([max(1, width // share) for width in dense] for share in (4, 2))
    rival, pruned = made.evaluate_keeping(quarter)
    worse = made.evaluate(half)  # an untrained network's outputs say little, and those of narrow ones too
    assert pruned is not None
    assert pruned.losses is not None
    assert rival.score is not None
    assert worse.score is not None
    assert rival.score > worse.score
    assert pruned.losses.mean() == pytest.approx(-rival.score, rel=1e-6)

    race, passes = Race(pruned.losses, rival.score, 0.99), made.passes.searched
    before = passes.run_parts + passes.spared_parts
    outcome, stopped = made.evaluate_keeping(half, race=race)
    saw = passes.run_parts + passes.spared_parts - before
    assert saw == before // 3 * 2 // 11, "2 of 11 batches, of which three networks had seen all"
    assert stopped is not None
    assert stopped.losses is None
    assert outcome.metric is None
    assert outcome.score == pytest.approx(worse.score, rel=0.1)
    assert outcome.score is not None
    assert outcome.score < rival.score

    assert made.evaluate_keeping(quarter, race=race)[0] == rival, "who may win sees all images"
    assert made.evaluate_keeping(half, race=replace(race, bar=2 * worse.score))[0] == worse, "whatever the rival is"
