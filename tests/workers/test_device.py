"""Where trials compute changes what they cost, not what they choose; where memory is short they go on with fewer images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.recovery.batchnorm import recalibrate_batchnorm
from service.client.export import export_model
from tests.networks import CifarResNet, randomise
from workers.data import Split, Splits
from workers.device import CPU, Images, moved, pieces, unrounded
from workers.evaluator import Evaluator
from workers.spec import JobSpec
from workers.trainable import PruningTrial

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Plain(nn.Module):
    """Without BatchNorm, so that it does the same with images one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


class Token(nn.Module):
    """Makes a tensor of nothing, whose size depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([x, torch.zeros(x.shape[0], 1, 4)], 1))


def splits() -> Splits:
    draw = np.random.default_rng(0)
    train, search = (Split(draw.normal(size=(n, 3, 8, 8)).astype(np.float32), draw.integers(0, 5, n)) for n in (80, 150))
    return Splits(train, search, replace(search))


def evaluator(folder: Path, *, plain: bool = False, **spec: object) -> Evaluator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Plain() if plain else randomise(CifarResNet(8, width=4))
    export_model(model, torch.zeros(2, 3, 8, 8), folder / "model.pt2")
    return Evaluator(folder / "model.pt2", splits(), JobSpec.model_validate({"budget": {"ratio": 0.5}, **spec}))


def half(made: Evaluator) -> list[int]:
    return [group.width // 2 for group in made.coupling.prunable]


@contextmanager
def room_for(images: int) -> Iterator[list[int]]:
    """Convolutions of more images find no memory; gives the sizes of all batches that came."""
    seen: list[int] = []
    forward = nn.Conv2d.forward

    def limited(self: nn.Conv2d, x: Tensor) -> Tensor:
        seen.append(len(x))
        if len(x) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", limited)
        yield seen


def test_short_of_memory_a_trial_goes_on_with_fewer_images_and_finds_the_same(tmp_path: Path) -> None:
    recovery = {"short_steps": 2, "least_squares": False}
    whole, short = (evaluator(tmp_path, plain=True, recovery=recovery) for _ in range(2))
    expected = whole.evaluate(half(whole))
    with room_for(20) as seen:
        found = short.evaluate(half(short))
        again = len(seen)
        short.quality(whole.dense, splits().test)
    assert found.score == pytest.approx(expected.score, rel=1e-4)  # float32, added up in another order
    assert found.metric == expected.metric
    assert max(seen[again:]) <= 20, "what did not fit is not tried again"


def test_batchnorm_is_recalibrated_with_fewer_images_too(tmp_path: Path) -> None:
    whole, short = (evaluator(tmp_path) for _ in range(2))
    reference = whole.prune(half(whole)).network
    with room_for(40):
        found = short.prune(half(short)).network.state_dict()
    images = torch.tensor(splits().train.x)
    recalibrate_batchnorm(reference, [images[:32], images[32:64], images[64:]])  # each piece once, as if it were a batch
    for name, expected in reference.state_dict().items():
        assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-5), name  # float32, in two layouts of memory


def test_what_not_even_one_image_fits_into_fails_alone(tmp_path: Path) -> None:
    made = evaluator(tmp_path)
    with room_for(0):
        outcome = made.evaluate(half(made))
    assert outcome.score is None
    assert outcome.error == "OutOfMemoryError: CUDA out of memory."
    assert made.evaluate(half(made)).error is None


def test_tensors_that_a_network_makes_go_with_it(tmp_path: Path) -> None:
    export_model(Token(), torch.zeros(2, 5, 4), tmp_path / "model.pt2")
    module = build_module(read_program(tmp_path / "model.pt2"))
    x = torch.randn(3, 5, 4)
    expected = module(x)
    assert moved(module, torch.device("meta"))(x.to("meta")).device.type == "meta"
    again = moved(build_module(read_program(tmp_path / "model.pt2")), CPU)
    assert torch.equal(again(x), expected)


def test_bfloat16_judges_nearly_alike_and_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.device.has_bfloat16", lambda _: True)  # a processor without instructions for it makes them up
    exact, fast, again = (
        evaluator(tmp_path, resources={"precision": f"{name}"}) for name in ("float32", "bfloat16", "bfloat16")
    )
    expected, (found, pruned) = exact.evaluate(half(exact)), fast.evaluate_keeping(half(fast))
    assert found.score == pytest.approx(expected.score, rel=0.05)
    assert found.score != expected.score
    assert pruned is not None
    assert {tensor.dtype for tensor in pruned.network.parameters()} == {torch.float32}
    again.evaluate([group.width for group in again.coupling.prunable])  # whatever came before
    assert again.evaluate(half(again)) == found
    dense = [made.quality(made.dense, splits().test) for made in (exact, fast)]
    assert dense[0] == dense[1], "test images pass in float32"


@pytest.mark.parametrize(
    "asked",
    [{"resources": {"precision": "bfloat16"}}, {"recovery": {"short_steps": 3, "recipe": {"precision": "bfloat16"}}}],
    ids=["trials", "training"],
)
def test_bfloat16_is_float32_where_the_processor_has_no_instructions_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False, "amx_bf16": False})
    short = {"recovery": {"short_steps": 3}} if "recovery" in asked else {}
    exact, made = evaluator(tmp_path, **short), evaluator(tmp_path, **asked)
    assert made.evaluate(half(made)) == exact.evaluate(half(exact))
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, **asked})
    assert "what it computes is in float32" in str(unrounded(spec))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": True})
    assert unrounded(spec) is None
    assert unrounded(JobSpec.model_validate({"budget": {"ratio": 0.5}})) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_trials_say_so_where_a_worker_has_no_gpu(tmp_path: Path) -> None:
    made = evaluator(tmp_path)
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "resources": {"gpus": 0.5}})
    trial = PruningTrial.__new__(PruningTrial)
    config = {"proposal": 0, "widths": half(made), "training": None, "race": None, "parent": None}
    trial.setup(config, np.fromfile(tmp_path / "model.pt2", np.uint8), splits(), spec, made.found)
    result = trial.step()
    assert result["score"] is None
    assert result["done"]
    assert str(result["error"]).startswith("resources.gpus is 0.5, but torch")


@on_gpu
@pytest.mark.parametrize("recovery", [{}, {"least_squares": True}, {"short_steps": 2}], ids=str)
@pytest.mark.parametrize("criterion", ["l1", "taylorfo"])
def test_a_gpu_keeps_the_same_channels_and_finds_the_same(criterion: str, recovery: dict[str, object], tmp_path: Path) -> None:
    spec = {"pruner": {"name": criterion}, "recovery": recovery}
    here, there = evaluator(tmp_path, **spec), evaluator(tmp_path, **spec, resources={"gpus": 0.5})
    (expected, one), (found, other) = (made.evaluate_keeping(half(made)) for made in (here, there))
    assert one is not None
    assert other is not None
    assert [kept.tolist() for kept in one.keep] == [kept.tolist() for kept in other.keep]
    assert next(other.network.parameters()).device.type == "cuda"
    assert {tensor.device for tensor in other.state()["weights"].values()} == {CPU}
    assert found.score == pytest.approx(expected.score, rel=1e-2 if "short_steps" in recovery else 1e-3)


@on_gpu
def test_images_that_do_not_fit_are_sent_one_ahead() -> None:
    batches = [torch.randn(4, 3) for _ in range(5)]
    for limit in (0, 2**20):
        images = Images(batches, torch.device("cuda", 0), limit)
        for _ in range(2):
            assert all(torch.equal(image.cpu(), batch) for image, batch in zip(images, batches, strict=True))


@pytest.mark.parametrize(("rows", "most"), [(64, 64), (65, 64), (64, 7), (4161, 64)])
def test_pieces_are_about_equal_so_that_none_is_a_single_image(rows: int, most: int) -> None:
    parts = pieces(torch.arange(rows), most)
    sizes = [len(part) for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert torch.cat(list(parts)).equal(torch.arange(rows))
