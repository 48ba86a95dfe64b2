"""Least squares: the weights that stay are the best there are, by numpy's own solver on patches cut out by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from pruners.graph.groups import Coupling
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from pruners.recovery.least_squares import input_moments, reconstruct
from tests.exporting import load

SMALL = {1: (9,), 2: (6, 5), 3: (5, 4, 3)}  # spatial sizes by number of dims
EVERY = 10**6  # rows to a column: more than there are


class Pair(nn.Module):
    """A layer whose channels go, and the one that reads them, whose weights make up for it."""

    def __init__(self, reader: nn.Module, first: nn.Module) -> None:
        super().__init__()
        self.first, self.reader = first, reader

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(torch.tanh(self.first(x)))


def conv(dims: int, *args: int, **options: object) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](*args, **options)


READERS = {
    "1x1": (2, {"kernel_size": 1}),
    "3x3": (2, {"kernel_size": 3, "padding": 1}),
    "strided": (2, {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False}),
    "dilated": (2, {"kernel_size": (2, 3), "dilation": (2, 1), "padding": (1, 0)}),
    "mirrored": (2, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    "in groups": (2, {"kernel_size": 3, "padding": 1, "groups": 2}),
    "1-D": (1, {"kernel_size": 3, "padding": 2}),
    "3-D": (3, {"kernel_size": 2}),
}


def cut(
    model: nn.Module, shape: tuple[int, ...], folder: Path
) -> tuple[fx.GraphModule, Coupling, list[np.ndarray], list[Tensor]]:
    torch.manual_seed(0)
    module = load(model, shape, folder / "model.pt2")
    coupling = trace(module)
    random = np.random.default_rng(0)
    keep = [np.sort(random.permutation(len(g.classes))[: (len(g.classes) + 1) // 2]) for g in coupling.prunable]
    return module, coupling, keep, list(torch.randn(2, 40, *shape))


def patches(layer: Any, x: Tensor) -> np.ndarray:
    """Every patch that the kernel covers, ``[positions, channels, kernel]``, by loops."""
    dims = layer.weight.dim() - 2
    if layer.padding_mode == "zeros":
        x = nn.functional.pad(x, [side for size in reversed(layer.padding) for side in (size, size)])
    else:
        x = nn.functional.pad(x, [side for size in reversed(layer.padding) for side in (size, size)], mode=layer.padding_mode)
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    starts = [range(0, x.shape[2 + i] - reach[i], layer.stride[i]) for i in range(dims)]
    rows = []
    for place in itertools.product(*starts):
        index = [slice(p, p + r + 1, d) for p, r, d in zip(place, reach, layer.dilation, strict=True)]
        rows.append(x[(slice(None), slice(None), *index)].flatten(2).double().numpy())
    return np.concatenate(rows)


@pytest.mark.parametrize("name", READERS)
def test_the_weights_are_numpys_solution(name: str, tmp_path: Path) -> None:
    dims, options = READERS[name]
    torch.manual_seed(1)
    model = Pair(conv(dims, 8, 6, **options), conv(dims, 3, 8, kernel_size=1))
    module, coupling, keep, images = cut(model, (3, *SMALL[dims]), tmp_path)
    small = shrink(module, coupling, keep)
    before = {key: value.clone() for key, value in small.state_dict().items()}
    reconstruct(small, module, coupling, keep, input_moments(module, coupling, images, EVERY))
    assert [key for key, value in small.state_dict().items() if not torch.equal(before[key], value)] == ["reader.weight"]

    reader, left = module.get_submodule("reader"), small.get_submodule("reader")
    with torch.no_grad():
        x = patches(model.reader, torch.tanh(model.first(torch.cat(images))))
    groups = reader.groups
    wide, narrow = x.shape[1] // groups, left.weight.shape[1]
    (group,) = [g for g in coupling.prunable if "first" in g.layers]
    kept = keep[coupling.prunable.index(group)]  # places in each of the reader's groups
    assert len(kept) == narrow
    weights = reader.weight.detach().double().numpy().reshape(groups, len(reader.weight) // groups, -1)
    found = left.weight.detach().double().numpy().reshape(groups, len(left.weight) // groups, -1)
    for number in range(groups):
        own = x[:, number * wide : (number + 1) * wide]
        wanted = own.reshape(len(x), -1) @ weights[number].T
        best, *_ = np.linalg.lstsq(own[:, kept].reshape(len(x), -1), wanted, rcond=None)
        np.testing.assert_allclose(found[number], best.T, rtol=1e-3, atol=1e-4)  # float32, and a ridge of 1e-6


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.reader = nn.Linear(4, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(torch.relu(self.first(x)))


def test_linear_layers_take_part(tmp_path: Path) -> None:
    module, coupling, keep, images = cut(Line(), (4,), tmp_path)
    small = shrink(module, coupling, keep)
    reconstruct(small, module, coupling, keep, input_moments(module, coupling, images, EVERY))
    x = torch.relu(module.get_submodule("first")(torch.cat(images))).detach().double().numpy()
    weight = module.get_submodule("reader").weight.detach().double().numpy()
    best, *_ = np.linalg.lstsq(x[:, keep[0]], x @ weight.T, rcond=None)
    np.testing.assert_allclose(small.get_submodule("reader").weight.detach().numpy(), best.T, rtol=1e-3, atol=1e-4)


def test_what_lost_no_input_is_left_alone(tmp_path: Path) -> None:
    module, coupling, _, images = cut(Pair(conv(2, 8, 6, kernel_size=3), conv(2, 3, 8, kernel_size=1)), (3, 6, 5), tmp_path)
    keep = [np.arange(len(group.classes)) for group in coupling.prunable]
    small = shrink(module, coupling, keep)
    reconstruct(small, module, coupling, keep, input_moments(module, coupling, images, EVERY))
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in small.state_dict().items())


def test_inputs_that_are_always_alike_or_silent_are_no_obstacle(tmp_path: Path) -> None:
    model = Pair(conv(2, 8, 6, kernel_size=3), conv(2, 3, 8, kernel_size=1))
    with torch.no_grad():
        for part in (model.first.weight, model.first.bias):
            part[1], part[2:4] = part[0], 0.0  # two alike, two silent
    module, coupling, _, images = cut(model, (3, 6, 5), tmp_path)
    keep = [np.array([0, 2, 3, 5, 6, 7])]  # of the two alike one goes: the other can do for both
    small = shrink(module, coupling, keep)
    reconstruct(small, module, coupling, keep, input_moments(module, coupling, images, EVERY))
    weight, found = module.get_submodule("reader").weight.detach(), small.get_submodule("reader").weight.detach()
    torch.testing.assert_close(found[:, 1:3], weight[:, 2:4])  # of what says nothing nothing is learnt
    with torch.no_grad():
        lost = (module(images[0]) - small(images[0])).abs().mean() / module(images[0]).abs().mean()
        plain = (module(images[0]) - shrink(module, coupling, keep)(images[0])).abs().mean() / module(images[0]).abs().mean()
    assert lost < plain / 2


def test_few_positions_of_many_do(tmp_path: Path) -> None:
    model = Pair(conv(2, 4, 6, kernel_size=1), conv(2, 3, 4, kernel_size=1))
    module, coupling, *_ = cut(model, (3, 24, 24), tmp_path)
    images = list(torch.randn(2, 40, 3, 24, 24))
    (moment,) = input_moments(module, coupling, images).values()
    with torch.no_grad():
        x = torch.tanh(module.get_submodule("first")(torch.cat(images))).permute(0, 2, 3, 1).reshape(-1, 4).double()
    rows = 80  # 8 for each of 4 columns would be 32: one of each image
    assert moment.shape == (1, 4, 4)
    assert np.abs(moment[0] / rows - (x.T @ x / len(x)).numpy()).max() < 0.1
    assert np.array_equal(moment, next(iter(input_moments(module, coupling, images).values())))
