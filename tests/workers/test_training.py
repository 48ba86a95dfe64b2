"""Training: a recipe does what it says, and a winner's training that was cut off goes on as if it had not been."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from pruners.graph.trace import trace
from tests.exporting import load
from tests.networks import CifarResNet, randomise
from workers.augment import augmented, cutmix, redrawn
from workers.data import Split, Splits
from workers.features import kept_inputs
from workers.fine_tuning import FineTuning
from workers.passes import Passes
from workers.quality import Quality
from workers.spec import Recovery
from workers.teacher import Teacher
from workers.training import Trainer

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> fx.GraphModule:
    return load(randomise(CifarResNet(8, width=4)), SHAPE, tmp_path_factory.mktemp("dense") / "dense.pt2")


@pytest.fixture(scope="module")
def splits() -> Splits:
    random = np.random.default_rng(0)
    return Splits(
        *(
            Split(random.standard_normal((count, *SHAPE)).astype(np.float32), random.integers(0, 10, count))
            for count in (130, 64, 64)
        )
    )


class Job:
    """What a job's process has at hand when it tunes the winner."""

    def __init__(self, dense: fx.GraphModule, splits: Splits, folder: Path, **recovery: Any) -> None:
        self.network = copy.deepcopy(dense)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        self.recovery = Recovery.model_validate({"final_epochs": 4, **recovery})
        self.passes = Passes(dense, splits, 0)
        coupling = trace(dense)
        everything = [np.arange(len(group.classes)) for group in coupling.prunable]
        inputs = kept_inputs(dense, coupling, everything) if self.recovery.recipe.features else {}
        self.trainer = Trainer(
            *(self.network, Teacher(dense, splits.train, self.passes.layout, inputs), splits.train),
            *(self.passes.objective, self.recovery.recipe),
            distill=self.recovery.distill,
            seed=0,
            inputs=inputs,
        )
        self.said: list[dict[str, Any]] = []
        self.file = folder / "0.tuned"
        self.splits = splits

    def judge(self, network: fx.GraphModule, split: Split) -> Quality:
        return self.passes.quality(network, split)

    def run(self, most_epochs: int | None = None) -> dict[str, Tensor]:
        """Tunes; dies behind so many epochs, if so many are stated."""

        def progress(message: str, **figures: float) -> None:
            self.said.append({"message": message, **figures})
            if most_epochs is not None and len(self.said) > most_epochs:
                raise KeyboardInterrupt

        tuning = FineTuning(
            *(self.network, self.trainer, self.judge, self.splits.search, self.passes.objective),
            *(self.recovery, self.file, progress),
        )
        tuning.run()
        return self.network.state_dict()


RECIPES = [
    {},
    {"optimizer": "adamw", "warmup": 0.2},
    {"augment": ["flips", "crops"], "average": 0.9, "label_smoothing": 0.1},
    {"features": 1.0},
    {"augment": ["cutmix"], "features": 1.0},
    {"precision": "bfloat16", "features": 1.0},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    folders = [tmp_path / name for name in ("whole", "cut")]
    for folder in folders:
        folder.mkdir()
    whole = Job(dense, splits, folders[0], recipe=recipe)
    expected = whole.run()
    with pytest.raises(KeyboardInterrupt):  # behind the second epoch's report, whose weights are not written yet
        Job(dense, splits, folders[1], recipe=recipe).run(most_epochs=1)
    resumed = Job(dense, splits, folders[1], recipe=recipe)
    found = resumed.run()
    assert resumed.said == whole.said[1:]
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())


@pytest.mark.parametrize("distill", [True, False])
@pytest.mark.parametrize("augment", [(), ("flips", "crops")], ids=str)
def test_the_best_epoch_on_the_search_split_is_kept(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, distill: bool, augment: tuple[str, ...]
) -> None:
    job = Job(dense, splits, tmp_path, distill=distill, recipe={"learning_rate": 0.3, "augment": augment})
    compared = redrawn(splits.search, augment)
    start = job.judge(job.network, compared)
    judged: list[Quality] = []

    def judge(network: fx.GraphModule, split: Split) -> Quality:
        if np.array_equal(split.x, compared.x):
            judged.append(job.passes.quality(network, split))
        return job.passes.quality(network, split)

    job.judge = judge  # type: ignore[method-assign]
    job.run()
    assert len(judged) == 5
    assert judged[0] == start
    end = job.passes.quality(job.network, compared)
    if distill:
        assert end.divergence == min(quality.divergence for quality in judged)
    else:
        assert end.metric == max(quality.metric for quality in judged)


def test_a_cut_that_is_near_on_the_search_images_alone_does_not_stand_for_its_training(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path
) -> None:
    """As where a plan was chosen on images that the dense network knows by heart: the cut is ahead on those, nowhere else."""
    job = Job(dense, splits, tmp_path, recipe={"augment": ["cutmix"]})
    start = {name: tensor.clone() for name, tensor in job.network.state_dict().items()}

    def judge(network: fx.GraphModule, split: Split) -> Quality:
        as_cut = all(torch.equal(start[name], tensor) for name, tensor in network.state_dict().items())
        at_home = split is splits.search
        return Quality(0.5, {(True, True): 0.0, (True, False): 1.0}.get((as_cut, at_home), 0.5), np.zeros(1, np.float32))

    job.judge = judge  # type: ignore[method-assign]
    assert any(not torch.equal(start[name], tensor) for name, tensor in job.run().items())


def test_every_epoch_is_told_in_figures(dense: fx.GraphModule, splits: Splits, tmp_path: Path) -> None:
    job = Job(dense, splits, tmp_path)
    job.run()
    assert [(told["epoch"], told["epochs"]) for told in job.said] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    first = job.said[0]
    shown = f"loss {first['loss']:.4f}, top-1 accuracy {first['metric']:.4f} on the search split"
    assert first["message"] == f"Fine-tuning: epoch 1 of 4, {shown}."


def test_training_ends_where_nothing_is_won_any_more(dense: fx.GraphModule, splits: Splits, tmp_path: Path) -> None:
    job = Job(dense, splits, tmp_path, final_epochs=50, recipe={"patience": 2, "learning_rate": 10.0})
    before = {name: tensor.clone() for name, tensor in job.network.state_dict().items()}
    after = job.run()
    assert len(job.said) == 3
    assert job.said[-1]["message"] == "Fine-tuning ends: no progress on the search split in 2 epochs."
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items()), "the network before it was the best"


def test_the_learning_rate_rises_and_falls(dense: fx.GraphModule, splits: Splits, tmp_path: Path) -> None:
    job = Job(dense, splits, tmp_path, recipe={"learning_rate": 1.0, "warmup": 0.25})
    scheduler, rates = job.trainer.falling(20), []
    for _ in range(20):
        rates.append(job.trainer.optimizer.param_groups[0]["lr"])
        job.trainer.optimizer.step()
        scheduler.step()
    assert rates[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert sorted(rates[5:], reverse=True) == rates[5:]
    assert job.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


@pytest.mark.parametrize(("epochs", "highest"), [(0.5, 0.25), (1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)])
def test_short_trainings_are_gentle(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, epochs: float, highest: float
) -> None:
    trainer = Job(dense, splits, tmp_path, recipe={"learning_rate": 1.0}).trainer
    assert trainer.falling(int(epochs * trainer.steps)).get_last_lr() == [pytest.approx(highest)]


def crops(images: Tensor, kinds: tuple[str, ...]) -> Iterator[Tensor]:
    yield from augmented(images, kinds, torch.Generator().manual_seed(0))


def test_flips_mirror_some_images_and_crops_shift_them_within_reach() -> None:
    images = torch.arange(16 * 16, dtype=torch.float32).reshape(1, 1, 16, 16).repeat(64, 1, 1, 1) + 1
    flipped = [torch.equal(image, images[0].flip(2)) for image in crops(images, ("flips",))]
    assert 16 < sum(flipped) < 48
    assert all(
        torch.equal(image, images[0])
        for image, mirrored in zip(crops(images, ("flips",)), flipped, strict=True)
        if not mirrored
    )
    shifts = set()
    padded = torch.nn.functional.pad(images[:1], [2] * 4)
    windows = {(y, x): padded[0, :, y : y + 16, x : x + 16] for y in range(5) for x in range(5)}
    for image in crops(images, ("crops",)):
        (found,) = [place for place, window in windows.items() if torch.equal(image, window)]
        shifts.add(found)
    assert len(shifts) > 15
    assert all(torch.equal(image, images[0]) for image in crops(images, ()))


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_puts_a_rectangle_of_another_image_into_each(seed: int) -> None:
    images = torch.arange(32.0)[:, None, None, None].expand(32, 3, 12, 16)
    mixed = cutmix(images, torch.Generator().manual_seed(seed))
    inside = mixed != images
    others = inside.any(dim=(1, 2, 3))
    assert others.sum() >= 24, "a few images may be drawn for themselves"
    rows, columns = (inside[others].any(dim=dims).nonzero().flatten() for dims in ((0, 1, 3), (0, 1, 2)))
    rectangle = torch.zeros(12, 16, dtype=torch.bool)
    rectangle[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = True
    assert torch.equal(inside[others], rectangle.expand(int(others.sum()), 3, 12, 16))
    assert all(len(image[rectangle.expand(3, 12, 16)].unique()) == 1 for image in mixed)


def test_cutmix_covers_any_share_of_the_area_alike() -> None:
    images, generator = torch.arange(2.0)[:, None, None, None].expand(2, 1, 32, 32), torch.Generator().manual_seed(0)
    shares = [float((cutmix(images, generator) != images).float().mean()) for _ in range(2000)]
    swapped = [share for share in shares if share]  # the others drew themselves
    assert len(swapped) == pytest.approx(1000, abs=80)
    assert [sum(share <= top for share in swapped) / len(swapped) for top in (0.25, 0.5, 0.75)] == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.06
    )


def test_a_split_is_redrawn_as_training_would_show_it_and_alike_each_time() -> None:
    draw = np.random.default_rng(0)
    split = Split(draw.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8), draw.integers(0, 5, 40))
    assert redrawn(split, ()) is split
    flipped = redrawn(split, ("flips",))
    mirrored = [not np.array_equal(*pair) for pair in zip(flipped.x, split.x, strict=True)]
    assert 8 < sum(mirrored) < 32
    expected = np.where(np.array(mirrored)[:, None, None, None], split.x[..., ::-1], split.x)
    assert np.array_equal(flipped.x, expected)
    mixed = redrawn(split, ("cutmix",))
    changed = (mixed.x != split.x).any(axis=(1, 2, 3))
    assert changed.mean() > 0.75
    assert {mixed.x.dtype, flipped.x.dtype} == {split.x.dtype}
    assert all(found.y is split.y for found in (flipped, mixed))
    for kinds, once in ((("flips",), flipped), (("cutmix",), mixed)):
        assert np.array_equal(redrawn(split, kinds).x, once.x)


def test_mixed_images_are_told_by_the_dense_network_alone(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, bool]] = []
    trainer = Job(dense, splits, tmp_path, recipe={"augment": ["cutmix"]}).trainer
    loss = trainer._loss

    def seen(images: Tensor, labels: Tensor | None, wanted: Tensor | None) -> Tensor:
        known = {image.numpy().tobytes() for image in torch.from_numpy(splits.train.x)}
        told.append((all(image.numpy().tobytes() in known for image in images.contiguous()), labels is not None))
        return loss(images, labels, wanted)

    monkeypatch.setattr(trainer, "_loss", seen)
    trainer.train(4 * trainer.steps)
    assert {labelled for _, labelled in told} == {True, False}
    assert all(plain for plain, labelled in told if labelled)
    assert not all(plain for plain, labelled in told if not labelled)


def test_label_smoothing_and_the_optimiser_change_what_is_learnt(dense: fx.GraphModule, splits: Splits, tmp_path: Path) -> None:
    plain, smooth, adam = (
        Job(dense, splits, tmp_path, distill=False, recipe=recipe).trainer.epoch()
        for recipe in ({}, {"label_smoothing": 0.5}, {"optimizer": "adamw"})
    )
    assert len({plain, smooth, adam}) == 3


@pytest.mark.parametrize("recovery", [{}, {"recipe": {"features": 1.0}}, {"distill": False}], ids=str)
def test_training_in_bfloat16_comes_near_to_the_same_weights_and_they_are_float32(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, recovery: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.device.has_bfloat16", lambda _: True)  # a processor without instructions for it makes them up
    exact, rounded = (
        Job(dense, splits, tmp_path, **{**recovery, "recipe": {**recovery.get("recipe", {}), "precision": precision}})
        for precision in ("float32", "bfloat16")
    )
    start = _weights(exact)
    losses = [job.trainer.epoch() for job in (exact, rounded)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)
    assert {tensor.dtype for tensor in rounded.network.parameters()} == {torch.float32}
    apart, moved = _weights(rounded) - _weights(exact), _weights(exact) - start
    assert 0 < float(apart.norm()) < 0.3 * float(moved.norm())


@pytest.mark.parametrize("count", [1, 64, 65, 66, 130])
def test_an_epoch_is_every_image_once_in_batches_about_equal(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    step, batches = Trainer._step, list[np.ndarray[Any, Any]]()
    monkeypatch.setattr(Trainer, "_step", lambda self, chosen, *rest: batches.append(chosen) or step(self, chosen, *rest))
    job = Job(dense, Splits(Split(splits.train.x[:count], splits.train.y[:count]), splits.search, splits.test), tmp_path)
    assert job.trainer.epoch() > 0
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= 64
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // 64)
    assert sorted(np.concatenate(batches)) == list(range(count))


def _weights(job: Job) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in job.network.parameters()])


@pytest.mark.parametrize("recipe", [{}, {"augment": ["flips"]}], ids=str)
def test_whole_passes_learn_the_same_from_answers_that_are_remembered(
    dense: fx.GraphModule, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    asked: list[int] = []
    ask = Teacher.__call__
    monkeypatch.setattr(Teacher, "__call__", lambda self, images: asked.append(len(images)) or ask(self, images))
    remembering = Job(dense, splits, tmp_path, recipe=recipe)
    losses = [remembering.trainer.epoch(), remembering.trainer.epoch()]
    assert sum(asked) == len(splits.train) * (2 if recipe else 1), "once, unless images change"
    monkeypatch.setattr("workers.teacher._REMEMBERED_BYTES", 0)
    asking = Job(dense, splits, tmp_path, recipe=recipe)
    assert [asking.trainer.epoch(), asking.trainer.epoch()] == pytest.approx(losses, rel=1e-4)


def test_images_that_only_the_dense_network_can_answer_are_distilled() -> None:
    with pytest.raises(ValueError, match=r"recipe\.augment 'cutmix' .*set distill to true"):
        Recovery.model_validate({"recipe": {"augment": ["flips", "cutmix"]}, "distill": False})
