"""The CIFAR ResNets that the benchmarks prune, and their pretrained weights.

A weight file is a ``.safetensors`` of a ResNet of He et al. 2016 with option-A shortcuts, keyed conv1, bn1,
layer{1,2,3}.{i}.{conv,bn}{1,2}, linear, as https://github.com/akamaster/pytorch_resnet_cifar10 has them.

Data are an ``.npz`` with x_train, y_train, x_test, y_test; images uint8 [n, 3, 32, 32]. The whole set comes from
https://www.cs.toronto.edu/~kriz/cifar.html; the first images of each of its batches will do.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from service.client.export import export_model
from workers.data import Split, Splits, load


class Block(nn.Module):
    """A basic block; where the stage changes its shortcut takes every second pixel and pads the channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = 0 if stride == 1 else outputs // 4

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x
        return functional.relu(y + shortcut)


class CifarResNet(nn.Module):
    """``depth = 6n + 2``; takes images in 0…1 and normalises them itself."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage in (1, 2, 3):
            blocks = []
            for index in range((depth - 2) // 6):
                outputs = 8 * 2**stage
                blocks.append(Block(inputs, outputs, 2 if stage > 1 and index == 0 else 1))
                inputs = outputs
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def export_cifar_resnet(weights: Path, path: Path) -> None:
    """Writes the network of a weight file as the ``.pt2`` that the service takes."""
    state = {name: tensor for name, tensor in load_file(weights).items() if not name.endswith("num_batches_tracked")}
    depth = 2 + 2 * sum(name.startswith("layer") and name.endswith("conv1.weight") for name in state)
    model = CifarResNet(depth)
    missing = set(model.state_dict()) - set(state)
    if {name for name in missing if not name.endswith("num_batches_tracked")} or set(state) - set(model.state_dict()):
        raise SystemExit(f"{weights} does not hold a CIFAR ResNet with option-A shortcuts.")
    model.load_state_dict(state, strict=False)
    export_model(model, torch.zeros(2, 3, 32, 32), path)


@contextmanager
def exported(weights: Path) -> Iterator[Path]:
    """The same as a file that is there meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.pt2"
        export_cifar_resnet(weights, model)
        yield model


def command_line(description: str | None) -> argparse.ArgumentParser:
    """For a benchmark of one network: what it prunes, and where the figures go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, required=True, help="a .safetensors of a CIFAR ResNet")
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON; without it they are printed")
    return parser


def held_out(data: Path, images: int, seed: int) -> Splits:
    """The job's splits, with so many of the training images to search on."""
    loaded = load(data, seed)
    x, y = (np.concatenate([getattr(split, name) for split in (loaded.search, loaded.train)]) for name in ("x", "y"))
    return Splits(Split(x[images:], y[images:]), Split(x[:images], y[:images]), loaded.test)
