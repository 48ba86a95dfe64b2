"""Networks that no package ships: CIFAR ResNets, other dimensions, generators, recurrence and hand-written attention."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class UNet(nn.Module):
    """Ronneberger et al. 2015, three levels: what goes down is concatenated to what comes up."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width)
        self.down = nn.ModuleList(self._double(a, b) for a, b in zip((3, *sizes), (*sizes, 8 * width), strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, stride=2) for size in reversed(sizes))
        self.join = nn.ModuleList(self._double(2 * size, size) for size in reversed(sizes))
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 3, h, w]`` to scores per pixel ``[n, 2, h, w]``."""
        skips: list[Tensor] = []
        for index, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class Generator(nn.Module):
    """Radford et al. 2016 (DCGAN): transposed convolutions from a latent vector to an image."""

    def __init__(self, latent: int = 64, width: int = 32) -> None:
        super().__init__()
        sizes = (latent, 8 * width, 4 * width, 2 * width)
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2 if index else 1, 1 if index else 0, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(2 * width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Latents ``[n, latent]`` to images ``[n, 3, 32, 32]``."""
        return self.layers(x[:, :, None, None])


class Volumes(nn.Module):
    """A 3-D CNN as for scans or video."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv3d(inputs, outputs, 3, padding=1), nn.BatchNorm3d(outputs), nn.ReLU(), nn.MaxPool3d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64 * 8, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Volumes ``[n, 1, 16, 16, 16]`` to scores."""
        return self.head(self.features(x))


class Signals(nn.Module):
    """A dilated 1-D CNN with residual blocks, as for audio and sensors."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, width, 7, stride=2, padding=3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, 2 * width, 3, padding=2**level, dilation=2**level), nn.BatchNorm1d(2 * width), nn.ReLU(),
                nn.Conv1d(2 * width, width, 1), nn.BatchNorm1d(width),
            )
            for level in range(3)
        )  # fmt: skip
        self.head = nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Signals ``[n, 4, length]`` to scores."""
        x = self.stem(x)
        for block in self.blocks:
            x = functional.relu(x + block(x))
        return self.head(functional.adaptive_avg_pool1d(x, 1).flatten(1))


class SqueezeExcite(nn.Module):
    """Hu et al. 2018: a small CNN whose channels are gated by their own means."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.squeeze = nn.ModuleList(nn.Linear(width, width // 4) for _ in range(3))
        self.excite = nn.ModuleList(nn.Linear(width // 4, width) for _ in range(3))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images to scores."""
        x = self.stem(x)
        for conv, norm, squeeze, excite in zip(self.convs, self.norms, self.squeeze, self.excite, strict=True):
            y = norm(conv(x))
            n, c, _, _ = y.shape
            gate = torch.sigmoid(excite(functional.relu(squeeze(y.mean((2, 3)))))).view(n, c, 1, 1)
            x = functional.relu(x + y * gate)
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM over a convolved sequence, with a hidden layer before the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 32, 3, padding=1)
        self.lstm = nn.LSTM(32, 48, num_layers=2, batch_first=True)
        self.hidden, self.head = nn.Linear(48, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences ``[n, 8, length]`` to scores."""
        states, _ = self.lstm(functional.relu(self.conv(x)).transpose(1, 2))
        return self.head(functional.relu(self.hidden(states[:, -1])))


class Encoder(nn.Module):
    """torch's own transformer encoder over word embeddings."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, length]`` to scores."""
        return self.head(self.encoder(self.embed(tokens)).mean(1))


class Attention(nn.Module):
    """Attention in its textbook spelling, with ``shared`` query heads to a key and value head (1: the usual kind)."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, width // shared), nn.Linear(width, width // shared)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        n, length, _ = x.shape
        return x.view(n, length, heads, self.size).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, length, width]`` to the same."""
        query = self._split(self.query(x), self.heads)
        key, value = (self._split(part(x), self.heads // self.shared) for part in (self.key, self.value))
        if self.shared > 1:
            key, value = key.repeat_interleave(self.shared, 1), value.repeat_interleave(self.shared, 1)
        weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(self.size), -1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class TextTransformer(nn.Module):
    """A pre-norm transformer over word and place embeddings with hand-written attention."""

    def __init__(self, width: int = 64, heads: int = 8, shared: int = 1, depth: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, width), nn.Parameter(torch.zeros(1, 16, width))
        self.attention = nn.ModuleList(Attention(width, heads, shared) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(depth)
        )
        self.before, self.between = (nn.ModuleList(nn.LayerNorm(width) for _ in range(depth)) for _ in range(2))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, 16]`` to scores."""
        x = self.words(tokens) + self.places
        for attention, mlp, before, between in zip(self.attention, self.mlp, self.before, self.between, strict=True):
            x = x + attention(before(x))
            x = x + mlp(between(x))
        return self.head(self.last(x).mean(1))


class Mixer(nn.Module):
    """Tolstikhin et al. 2021: one MLP mixes the patches, one the channels, in turn."""

    def __init__(self, width: int = 64, patches: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.tokens = nn.ModuleList(self._mlp(patches, patches // 2) for _ in range(depth))
        self.channels = nn.ModuleList(self._mlp(width, 4 * width) for _ in range(depth))
        self.before, self.between = (nn.ModuleList(nn.LayerNorm(width) for _ in range(depth)) for _ in range(2))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    @staticmethod
    def _mlp(width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 3, 32, 32]`` to scores."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        for tokens, channels, before, between in zip(self.tokens, self.channels, self.before, self.between, strict=True):
            x = x + tokens(before(x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(between(x))
        return self.head(self.last(x).mean(1))
