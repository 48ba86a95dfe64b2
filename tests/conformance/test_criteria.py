"""What every registered criterion must do, on any layer, and what calibrating it must leave as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruners.calibration import Calibration, calibrate
from pruners.criteria.base import CRITERIA, NORMS, Calibrated, Criterion, Signal
from pruners.errors import InvalidInput
from tests.exporting import export
from tests.networks import CifarResNet, randomise
from workers.data import load
from workers.evaluator import Evaluator, make_criterion
from workers.inspection import catalogue
from workers.spec import JobSpec

pytestmark = pytest.mark.parametrize("name", list(CRITERIA))

SCALES_LIKE = {  # weights × c give scores × c to this power, where what follows the layer makes up for it
    "l1": 1,
    "l2": 1,
    "fpgm": 1,
    "slim": 1,
    "mean_activation": 1,
    "apoz": 0,
    "taylorfo": 0,
    "hessian": 0,
    "lamp": 0,
    "random": 0,
}
BLIND = {"random"}  # these look at nothing but the position
SAMPLED = {"hessian"}  # these draw numbers by position, so that only their mean is free of it
ROUNDING = 1e-4  # of float32 passes whose sums run in another order, relative; a wrong channel is off by far more


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """A convolution, a norm and a layer to score, in front of a classifier of four classes that reads its maxima."""

    def __init__(self, layer: nn.Module | None = None, outputs: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.layer = layer or nn.Conv2d(5, outputs, 3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(outputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(torch.relu(self.norm(self.stem(x))))
        return self.head(self.drop(torch.relu(x).flatten(2).mean(2)))


def net(layer: nn.Module | None = None, outputs: int = 6) -> Net:
    torch.manual_seed(0)
    return randomise(Net(layer, outputs)).eval()


def batches(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(8, 2, 8, 8, generator=generator) for _ in range(3)]
    return [(each.to(device, dtype), torch.arange(8, device=device) % 4) for each in images]


def part(criterion: Criterion, model: Net) -> nn.Module:
    """The part of the network that this criterion scores."""
    return model.norm if criterion.scored == NORMS else model.layer


def statistics(criterion: Criterion, model: Net, data: list[tuple[Tensor, Tensor]]) -> Tensor | None:
    return (
        calibrate(model, {"it": part(criterion, model)}, criterion, data)["it"] if isinstance(criterion, Calibrated) else None
    )


def score(name: str, model: Net, data: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
    criterion = CRITERIA[name]()
    return criterion.scores(part(criterion, model), statistics(criterion, model, data or batches()))


def test_scores_are_one_finite_number_of_0_or_more_per_channel(name: str) -> None:
    found = score(name, net())
    assert found.shape == (5 if CRITERIA[name].scored == NORMS else 6,)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert len(found.unique()) > 1


def test_the_same_twice(name: str) -> None:
    assert torch.equal(score(name, net()), score(name, net()))


def test_it_scales_as_its_formula_does(name: str) -> None:
    """A power of two changes no digit, so the scaled scores are exactly what the formula says."""
    model = net()
    scored = part(CRITERIA[name](), model)
    before = score(name, model)
    following = model.layer if scored is model.norm else model.head
    with torch.no_grad():
        scored.weight.mul_(4)  # type: ignore[operator, union-attr]
        scored.bias.mul_(4)  # type: ignore[operator, union-attr]
        following.weight.div_(4)  # type: ignore[operator, union-attr]
    assert torch.equal(score(name, model), before * 4 ** SCALES_LIKE[name])


def permuted(model: Net, order: Tensor) -> Net:
    """The same function with the scored layer's channels in another order."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layer.weight.copy_(model.layer.weight[order])  # type: ignore[operator, union-attr]
        other.layer.bias.copy_(model.layer.bias[order])  # type: ignore[operator, union-attr]
        other.head.weight.copy_(model.head.weight[:, order])
    return other


def test_scores_move_with_their_channels(name: str) -> None:
    if name in BLIND or CRITERIA[name].scored == NORMS:
        pytest.skip("looks at nothing, or at one number per channel")
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    model = net()
    criterion, other = CRITERIA[name](), permuted(model, order)
    seen = statistics(criterion, model, batches())
    moved = None if seen is None else seen[order]
    assert torch.equal(criterion.scores(other.layer, moved), criterion.scores(model.layer, seen)[order])
    if moved is not None and name not in SAMPLED:
        torch.testing.assert_close(statistics(criterion, other, batches()), moved, rtol=ROUNDING, atol=0)


def test_equal_filters_score_alike(name: str) -> None:
    """So that ties are ties, and go by index."""
    if name in BLIND:
        pytest.skip("looks at nothing")
    model = net()
    criterion = CRITERIA[name]()
    scored = part(criterion, model)
    with torch.no_grad():
        for tensor in (scored.weight, scored.bias):
            tensor.copy_(tensor[:1].expand_as(tensor).clone())  # type: ignore[operator, union-attr, index]
        model.head.weight.copy_(model.head.weight[:, :1].expand(4, 6).clone())
    seen = statistics(criterion, model, batches())
    if seen is not None and name not in SAMPLED:
        torch.testing.assert_close(seen, seen[:1].expand_as(seen), rtol=ROUNDING, atol=0)
    found = criterion.scores(scored, None if seen is None else torch.ones_like(seen))
    assert len(found.unique()) == 1


def test_a_layer_of_one_channel(name: str) -> None:
    found = score(name, net(nn.Conv2d(5, 1, 3), outputs=1))
    assert found.isfinite().all()


def test_layers_without_bias(name: str) -> None:
    assert score(name, net(nn.Conv2d(5, 6, 3, bias=False))).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_score_like_the_same_weights_in_float32(name: str, dtype: torch.dtype) -> None:
    model = net().to(dtype)
    found, expected = score(name, model, batches(dtype)), score(name, copy.deepcopy(model).float())
    assert found.isfinite().all()
    assert found.dtype == torch.float64
    criterion = CRITERIA[name]()
    if criterion.signal is Signal.WEIGHT:
        assert torch.equal(found, expected)
    elif criterion.signal is not Signal.CURVATURE:  # half of its samples cancel out, and with them the digits
        # Activations and gradients of half-precision passes have two digits, and their squares less.
        torch.testing.assert_close(found / found.mean(), expected / expected.mean(), rtol=0.1, atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_choice_on_a_gpu(name: str) -> None:
    model = net()
    here = score(name, model)
    with torch.backends.cudnn.flags(allow_tf32=False):  # which has three digits, too few to choose alike
        there = score(name, copy.deepcopy(model).cuda(), batches(device="cuda"))
    assert here.argsort(stable=True).tolist() == there.argsort(stable=True).tolist()


def snapshot(model: Net) -> dict[str, Any]:
    """All that calibration could disturb."""
    return {
        "modes": [module.training for module in model.modules()],
        "tensors": {key: tensor.clone() for key, tensor in model.state_dict().items()},
        "gradients": [None if each.grad is None else each.grad.clone() for each in model.parameters()],
        "trainable": [each.requires_grad for each in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()],
        "tensor hooks": [len(each._backward_hooks or ()) for each in model.parameters()],
        "random": torch.get_rng_state(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def worn() -> Net:
    """A network in the middle of training: mixed modes, some gradients, a frozen part."""
    model = net()
    model.train()
    model.norm.eval()
    model.stem.requires_grad_(False)
    model.layer.weight.grad = torch.ones_like(model.layer.weight)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("broken", [False, True])
def test_scoring_leaves_the_network_as_it_was(name: str, broken: bool) -> None:
    model = worn()
    before = snapshot(model)
    data = [*batches(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))] if broken else batches()
    if broken and CRITERIA[name].signal is not Signal.WEIGHT:
        with pytest.raises(RuntimeError, match="channels"):
            score(name, model, data)
    else:
        score(name, model, data)
    assert_same(snapshot(model), before)


def test_hooks_change_nothing_and_go(name: str) -> None:
    criterion = CRITERIA[name]()
    if criterion.signal not in {Signal.ACTIVATION, Signal.GRADIENT}:
        pytest.skip("watches nobody's passes")
    plain, seen = net(), net()
    before = snapshot(seen)
    calibration = Calibration({"it": part(criterion, seen)}, criterion, batches=2)
    for images, targets in batches():
        for model in (plain, seen):
            nn.functional.cross_entropy(model(images), targets).backward()
    assert calibration.complete
    assert_same([each.grad for each in seen.parameters()], [each.grad for each in plain.parameters()])
    after = snapshot(seen)
    for key in ("modes", "tensors", "hooks", "tensor hooks"):
        assert_same(after[key], before[key])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("criteria")
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 8), ("val", 8)):
        arrays[f"x_{split}"] = random.random((count, 3, 8, 8), dtype=np.float32)
        arrays[f"y_{split}"] = random.integers(0, 10, count)
    np.savez(folder / "data.npz", **arrays)
    torch.manual_seed(0)
    return export(randomise(CifarResNet(8, width=4)), (3, 8, 8), folder / "model.pt2"), folder / "data.npz"


def spec(name: str, params: dict[str, object] | None = None, seed: int = 0) -> JobSpec:
    return JobSpec.model_validate({"budget": {"ratio": 0.5}, "pruner": {"name": name, "params": params or {}}, "seed": seed})


def test_a_job_takes_it_by_name_and_chooses_alike_in_every_process(name: str, files: tuple[Path, Path]) -> None:
    data = load(files[1], 0)
    first, second = (Evaluator(files[0], data, spec(name)) for _ in range(2))
    widths = [group.width // 2 for group in first.coupling.prunable]
    for one, other, group in zip(first.prune(widths).keep, second.prune(widths).keep, first.coupling.prunable, strict=True):
        assert one.tolist() == other.tolist()
        assert len(one) * group.divisor == group.width // 2


def test_the_catalogue_says_what_it_takes(name: str) -> None:
    (entry,) = [json.loads(json.dumps(each)) for each in catalogue()["pruners"] if each["name"] == name]
    assert entry["reference"]
    assert entry["description"].endswith(".")
    assert entry["params"]["additionalProperties"] is False
    for parameter in entry["params"].get("properties", {}).values():
        assert parameter["description"]
        assert "default" in parameter


def test_wrong_parameters_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^pruner\.params\.imagse 5 is not usable: .*\.$"):
        make_criterion(spec(name, {"imagse": 5}))
    for parameter, schema in catalogue_of(name).items():
        for wrong in ([], {}, *([schema["minimum"] - 1] if "minimum" in schema else [])):
            with pytest.raises(InvalidInput, match=rf"^pruner\.params\.{parameter} .*\.$"):
                make_criterion(spec(name, {parameter: wrong}))


def catalogue_of(name: str) -> dict[str, Any]:
    (entry,) = [each for each in catalogue()["pruners"] if each["name"] == name]
    properties: dict[str, Any] = entry["params"].get("properties", {})
    return properties


def test_it_follows_the_jobs_seed_unless_it_has_its_own(name: str) -> None:
    if "seed" not in catalogue_of(name):
        assert make_criterion(spec(name, seed=3)) == make_criterion(spec(name, seed=4))
        return
    assert make_criterion(spec(name, seed=3)) == CRITERIA[name](seed=3)  # type: ignore[call-arg]
    assert make_criterion(spec(name, {"seed": 9}, seed=3)) == CRITERIA[name](seed=9)  # type: ignore[call-arg]
