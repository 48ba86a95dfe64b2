"""Features: what layers of a pruned network take in, beside the dense network's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from tests.exporting import load
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, randomise
from workers.features import Inputs, feature_loss, kept_inputs, telling
from workers.spec import Recovery

NETWORKS = {
    "resnet": (CifarResNet(8, width=4), (3, 8, 8)),
    "vgg": (VGG16BN(8), (3, 32, 32)),  # whose linear layer takes in flattened images
    "depthwise": (MobileNetV2(), (3, 16, 16)),
}


def seen(network: fx.GraphModule, x: Tensor) -> dict[str, Tensor]:
    """What every layer takes in, by hooks."""
    found: dict[str, Tensor] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: found.update({name: args[0].clone()})

    hooks = [
        layer.register_forward_pre_hook(look(name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_is_that_of_inputs_compared_channel_by_channel(name: str, layout: torch.memory_format, tmp_path: Path) -> None:
    model, shape = NETWORKS[name]
    dense = load(randomise(model), shape, tmp_path / "model.pt2")
    coupling = trace(dense)
    random = np.random.default_rng(0)
    keep = [np.sort(random.permutation(len(g.classes))[: (len(g.classes) + 1) // 2]) for g in coupling.prunable]
    small = shrink(dense, coupling, keep)
    inputs = kept_inputs(dense, coupling, keep)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)

    with torch.no_grad():
        outputs, found = telling(small, inputs)(x)
        wanted = telling(dense, inputs)(x)[1]
        assert torch.equal(outputs, small(x))

    by_hand, dense_by_hand = seen(small, x), seen(dense, x)
    readers = {m.tensor.removesuffix(".weight") for m in coupling.members if m.dim == 1 and not m.output}
    assert set(inputs) == {layer for layer in by_hand if layer in readers}
    assert all(torch.equal(by_hand[layer], value) for layer, value in zip(inputs, found, strict=True))
    shares = []
    for layer, (_, stay) in inputs.items():
        mine, theirs = by_hand[layer], dense_by_hand[layer][:, torch.from_numpy(stay)]
        shares.append(float((mine - theirs).square().mean() / theirs.var(correction=0)))
    assert float(feature_loss(found, wanted, inputs)) == pytest.approx(np.mean(shares), rel=1e-5)
    assert all(len(stay) == by_hand[layer].shape[1] for layer, (_, stay) in inputs.items())


def test_the_dense_network_itself_has_nothing_to_learn(tmp_path: Path) -> None:
    model, shape = NETWORKS["resnet"]
    dense = load(randomise(model), shape, tmp_path / "model.pt2")
    coupling = trace(dense)
    inputs = kept_inputs(dense, coupling, [np.arange(len(group.classes)) for group in coupling.prunable])
    with torch.no_grad():
        taken = telling(dense, inputs)(torch.randn(4, *shape))[1]
    assert float(feature_loss(taken, taken, inputs)) == 0


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_layer_that_takes_in_the_same_everywhere_counts_as_0_and_pulls_nowhere(value: float) -> None:
    flat, varied = torch.full((4, 3, 8, 8), value), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mine = [(flat + 0.1).requires_grad_(), (varied + 1).requires_grad_()]
    inputs = dict.fromkeys(("dead", "alive"), Inputs(1, np.arange(3)))
    loss = feature_loss(mine, [flat, varied], inputs)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(1 / varied.var(correction=0)) / 2, rel=1e-5)
    assert mine[0].grad is not None
    assert not mine[0].grad.any()
    assert mine[1].grad is not None
    assert mine[1].grad.any()


@pytest.mark.parametrize("wanted", [{"recipe": {"features": -1}}, {"recipe": {"features": 1}, "distill": False}], ids=str)
def test_features_that_cannot_be_learned_are_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 0|recipe\.features 1\.0 .*set distill to true"):
        Recovery.model_validate(wanted)
