"""What tests of the schedules share: a network with coupled layers, images it can learn, and one epoch of training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVERY = ["default"]


class Net(nn.Module):
    """Two convolutions with BatchNorm, whose channels are added up, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 10, 3, padding=1)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(x + self.conv2(x))
        return self.fc(x.mean((2, 3)))


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def data(count: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Noisy images of level ground, stripes either way, or a chequerboard; which, is to be learnt."""
    generator = torch.Generator().manual_seed(1)
    sign = torch.tensor([1.0, -1.0]).repeat(3)
    patterns = torch.stack([torch.ones(6, 6), sign.expand(6, 6), sign.view(6, 1).expand(6, 6), sign * sign.view(6, 1)])
    labels = torch.randint(4, (count, 16), generator=generator)
    images = patterns[labels].unsqueeze(2) + torch.randn(count, 16, 1, 6, 6, generator=generator)
    return list(zip(images, labels, strict=True))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    epoch: int = 0,
) -> None:
    for images, labels in data():
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def masked(pruner: object, name: str) -> int:
    return int((pruner.masks[name]["weight"] == 0).sum())  # type: ignore[attr-defined]
