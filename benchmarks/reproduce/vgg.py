"""VGG for 32 × 32 images, with BatchNorm and without dropout, as both papers train it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

VGG16 = (2, 2, 3, 3, 3)
"""Convolutions in each stage; behind each the image is halved."""

VGG19 = (2, 2, 4, 4, 4)

_STAGE_WIDTHS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """Layers are ``features.conv1``, ``features.bn1`` and so on, numbered from the input.

    Args:
        stages: convolutions in each.
        widths: output channels of each convolution.
        hidden: width of the linear layer before the last; 0 for none, as in Network Slimming.
        channels: of the images.
    """

    def __init__(self, stages: Sequence[int], widths: Sequence[int], hidden: int, channels: int = 3) -> None:
        super().__init__()
        ends = [sum(stages[: stage + 1]) for stage in range(len(stages))]
        layers = OrderedDict[str, nn.Module]()
        inputs = channels
        for number, width in enumerate(widths, start=1):
            layers[f"conv{number}"] = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            if number in ends:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
            inputs = width
        self.features = nn.Sequential(layers)
        self.hidden = nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()) if hidden else nn.Identity()
        self.classifier = nn.Linear(hidden or inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.hidden(torch.flatten(self.features(x), 1)))


def full_widths(stages: Sequence[int], share: float = 1.0) -> list[int]:
    """Channels of each convolution of the whole network, times ``share``."""
    return [int(share * width) for width, convolutions in zip(_STAGE_WIDTHS, stages, strict=True) for _ in range(convolutions)]


def widths_of(network: nn.Module) -> list[int]:
    """Channels of each convolution that a network has, as removal left it."""
    return [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def params(network: nn.Module) -> int:
    """Elements of its parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module) -> int:
    """Multiply-accumulates for one image, counted by torch on a real pass: half of the floating-point operations."""
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    was_training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, first.in_channels, 32, 32))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2
