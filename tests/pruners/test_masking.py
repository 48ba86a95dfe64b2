"""Masks in place: zero stays zero through training, copies, files, devices and processes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from pruners.masking import channel_masks, keep_masked, masks_of, remove_masks, set_masks
from tests.pruners.pruning import reloaded

KEEP = torch.tensor([True, False, True, False])


class Twice(nn.Module):
    """A layer called twice, a lambda, and a plain function: masks must not mind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.double = lambda x: x * 2
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.double(F.relu(self.stem(x)))
        x = self.shared(F.relu(self.shared(x)))
        return self.head(x.mean((2, 3)))


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        nn.init.ones_(self[1].bias)  # a shift that can be seen to go


def masked(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            set_masks(layer, channel_masks(layer, KEEP))
    return model


def is_masked(model: nn.Module) -> bool:
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    return all(
        torch.equal(parameter.detach().flatten(1).abs().sum(1) != 0 if parameter.dim() > 1 else parameter != 0, KEEP)
        for layer in layers
        for parameter in layer.parameters()
    )


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor | None = None) -> None:
    optimizer.zero_grad()
    model(images() if x is None else x).square().sum().backward()
    optimizer.step()


OPTIMIZERS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
    lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("network", [Twice, Plain])
def test_masked_weights_stay_zero_behind_every_step(make: Callable[..., torch.optim.Optimizer], network: type) -> None:
    torch.manual_seed(0)
    model = network()
    optimizer = make(model.parameters())
    for _ in range(2):  # momentum of the time before the masks
        step(model, optimizer)
    masked(model)
    keep_masked(optimizer, model.modules())
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        step(model, optimizer)
        assert is_masked(model)
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert changed == [name for name, _ in model.named_parameters()], "what is not masked trains"


def test_without_an_optimizer_weights_are_masked_before_each_forward_pass() -> None:
    model = masked(Plain())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    model(images())
    assert is_masked(model)


def test_weights_stay_plain_parameters_and_removing_masks_leaves_a_plain_network() -> None:
    model = Plain()
    names, keys = [name for name, _ in model.named_parameters()], list(model.state_dict())
    weight = model[0].weight
    masked(model)
    assert model[0].weight is weight
    assert [name for name, _ in model.named_parameters()] == names
    assert set(masks_of(model)) == {"0", "1"}
    with torch.no_grad():
        weight.fill_(1.0)
    remove_masks(model)
    assert is_masked(model), "masked once more on leaving"
    assert list(model.state_dict()) == keys
    assert masks_of(model) == {}
    with torch.no_grad():
        weight.fill_(1.0)
    model(images())
    assert not is_masked(model)


def _from_state(model: nn.Module) -> nn.Module:
    other = Plain()
    for layer in (other[0], other[1]):
        set_masks(layer, channel_masks(layer, torch.ones(4, dtype=torch.bool)))
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        reloaded,
        _from_state,
        lambda model: model.to(torch.float64).to(torch.float32),
        lambda model: model.to("cpu"),
    ],
    ids=["deepcopy", "torch.save", "state_dict", "dtype", "device"],
)
def test_masks_survive(change: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = masked(Plain())
    other = change(model)
    assert torch.equal(other(images()), model(images()))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    keep_masked(optimizer, other.modules())
    step(other, optimizer)
    assert is_masked(other)
    assert all(torch.equal(parts["weight"], masks_of(other)[name]["weight"]) for name, parts in masks_of(model).items())


def test_a_copy_and_its_origin_go_separate_ways() -> None:
    model = masked(Plain())
    other = copy.deepcopy(model)
    remove_masks(other)
    assert set(masks_of(model)) == {"0", "1"}
    with torch.no_grad():
        other[0].weight.fill_(1.0)
    assert is_masked(model)


def test_masks_hold_under_autocast_to_bfloat16() -> None:
    torch.manual_seed(0)
    model = masked(Twice())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    keep_masked(optimizer, model.modules())
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert bool((model.stem(images())[:, ~KEEP] == 0).all())
            loss = model(images()).float().square().sum()
        loss.backward()
        optimizer.step()
        assert is_masked(model)


def test_a_masked_network_exports() -> None:
    model = masked(Plain()).eval()
    program = torch.export.export(model, (images(),))
    torch.testing.assert_close(program.module()(images()), model(images()), rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_channel_masks_silence_exactly_these_channels(kind: type, groups: int) -> None:
    layer = kind(4, 6, 3, groups=groups)
    keep = torch.tensor([True, False, True, True, True, False])
    set_masks(layer, channel_masks(layer, keep))
    output = layer(torch.randn(2, 4, *[5] * (layer.weight.dim() - 2), generator=torch.Generator().manual_seed(0)))
    assert torch.equal(output.transpose(0, 1).flatten(1).abs().sum(1) != 0, keep)


def _train_on_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = masked(Plain())
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    keep_masked(optimizer, model.modules())
    for _ in range(2):
        step(parallel, optimizer, images()[rank::2])
    torch.save({"masked": is_masked(model), "weight": model[0].weight.detach()}, f"{folder}/{rank}.pth")
    distributed.destroy_process_group()


def test_masks_hold_under_distributed_data_parallel(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train_on_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    assert first["masked"]
    assert second["masked"]
    assert torch.equal(first["weight"], second["weight"])
