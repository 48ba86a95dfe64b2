"""The demo's data and network: scikit-learn's handwritten digits and a small ResNet that learns them in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

TEST_IMAGES = 400  # of 1,797; leaves 1,397 to learn from
SEED = 0

Arrays = dict[str, NDArray[np.generic]]


class Block(nn.Module):
    """A basic residual block (He et al. 2016) with a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsResNet(nn.Module):
    """Three residual blocks; logits ``[n, 10]`` for images ``[n, 1, 8, 8]`` in 0…1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(functional.relu(self.bn(self.conv(x)))).mean((2, 3)))
        return logits


def make_data(path: Path) -> Arrays:
    """Writes the digits to ``path`` as the ``.npz`` that the service takes, and returns the arrays."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x = (digits.images[order, None] / 16).astype(np.float32)  # the images hold 0…16
    y = digits.target[order].astype(np.int64)
    arrays: Arrays = {
        "x_train": x[TEST_IMAGES:],
        "y_train": y[TEST_IMAGES:],
        "x_test": x[:TEST_IMAGES],
        "y_test": y[:TEST_IMAGES],
    }
    np.savez(path, allow_pickle=False, **arrays)
    return arrays


def train_network(data: Arrays, epochs: int = 12) -> DigitsResNet:
    """A network trained on the training images, in eval mode."""
    torch.manual_seed(SEED)
    model = DigitsResNet()
    x, y = torch.tensor(data["x_train"]), torch.tensor(data["y_train"])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()
