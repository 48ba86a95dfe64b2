"""What comes of a trial: a network that lost channels, and the same as plain tensors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from pruners.graph.groups import Indices


class State(TypedDict):
    """A pruned network as tensors and numbers: what is written of it, and sent; see ``Pruned``."""

    keep: list[Tensor]
    weights: dict[str, Tensor]
    steps: int


@dataclass(frozen=True)
class Pruned:
    """A network that lost channels.

    Attributes:
        network: what is left.
        keep: per prunable group of the dense network, the indices into its classes that were kept.
        steps: of training that went into its weights, on top of the dense network's.
        losses: by search image, if it was judged on all of them.
    """

    network: fx.GraphModule
    keep: list[Indices]
    steps: int = 0
    losses: NDArray[np.float32] | None = None

    def state(self) -> State:
        """The tensors are on the CPU; if the network is there, they are its own."""
        weights = {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}
        return State(keep=[torch.from_numpy(kept) for kept in self.keep], weights=weights, steps=self.steps)


def save_whole(content: Any, path: Path) -> None:
    """Writes tensors and plain values for ``torch.load``; the file is there whole or not at all, whenever the process dies."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    os.replace(unfinished, path)
