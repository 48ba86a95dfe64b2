"""What a reader of the documentation has and we have not: a trained network and its data. Small, and random.

python -m tests.docs.small FILE …     # net.pt2, depth.pt2, data.npz, depth.npz, photos.tar: what the pages' commands name
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from service.client.export import export_model

_draw = np.random.default_rng(0)
_x = _draw.integers(0, 256, (160, 3, 32, 32), dtype=np.uint8)
_y = _draw.integers(0, 10, 160)
x_train, y_train, x_test, y_test = _x[:120], _y[:120], _x[120:], _y[120:]
images, labels = torch.rand(8, 3, 32, 32), torch.randint(10, (8,))
data = [(images, labels)] * 2


class SmallNet(nn.Module):
    """A residual network for images of 32×32 pixels, with ten outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=4, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        return self.fc(F.relu(self.conv3(x)).mean((2, 3)))


torch.manual_seed(0)
model = SmallNet().eval()


def new() -> tuple[SmallNet, torch.optim.Optimizer]:
    """A network to be trained, and what trains it."""
    made = SmallNet()
    return made, torch.optim.SGD(made.parameters(), 0.01, momentum=0.9)


def train(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """An epoch."""
    network.train()
    for x, y in data:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()


def write(path: Path) -> None:
    """One of the files that commands name."""
    arrays = {"x_train": x_train, "x_test": x_test}
    if path.suffix == ".pt2":
        export_model(model, torch.zeros(2, 3, 32, 32), path)
    elif path.name == "depth.npz":
        targets = {name.replace("x", "y"): _draw.normal(size=(len(x), 10)).astype(np.float32) for name, x in arrays.items()}
        np.savez(path, allow_pickle=False, **arrays, **targets)
    elif path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **arrays, y_train=y_train, y_test=y_test)
    else:
        with tarfile.open(path, "w") as archive:
            for number, pixels in enumerate(_x):
                content = io.BytesIO()
                Image.fromarray(pixels.transpose(1, 2, 0)).save(content, "PNG")
                member = tarfile.TarInfo(f"photos/{number}.png")
                member.size = content.tell()
                content.seek(0)
                archive.addfile(member, content)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
