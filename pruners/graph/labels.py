"""Channel labels: which channels of which tensors stand or fall together.

A label tensor has the shape of an activation and holds, at each position, the label of the channel it belongs to, or
``FIXED`` where nothing may be removed. Dims along which the label is constant are kept at stride 0, so a label tensor of any
size costs little memory. ``Labels`` unites labels (union-find) and freezes them with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIXED = -1
"""The label of positions that belong to no removable channel, such as a network's input."""


class Labels:
    """All labels handed out so far, which of them are one, and which are frozen."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reason: dict[int, str] = {}
        self._summed: set[int] = set()
        self._normed: set[int] = set()

    def fresh(self, count: int) -> Tensor:
        """``count`` new labels ``[count]``."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, label: int) -> int:
        """The representative of a label's class."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def roots(self, labels: Tensor | NDArray[np.int64]) -> NDArray[np.int64]:
        """Representatives of labels, in the same shape; ``FIXED`` stays."""
        values, inverse = np.unique(np.asarray(labels), return_inverse=True)
        found = np.array([FIXED if value == FIXED else self.find(int(value)) for value in values], dtype=np.int64)
        return found[inverse].reshape(np.asarray(labels).shape)

    def unite(self, first: Tensor, second: Tensor, *, summed: bool = False) -> None:
        """Makes labels at equal positions one; a channel that meets a ``FIXED`` position is frozen.

        Args:
            first: labels.
            second: labels of the same shape.
            summed: the two are added, which marks a residual stream.
        """
        first, second = shrink_constant_dims(first, second)
        pairs = np.unique(np.stack([first.reshape(-1).numpy(), second.reshape(-1).numpy()]), axis=1)
        for a, b in pairs.T.tolist():
            if a == b:
                continue
            if FIXED in (a, b):
                self._freeze_one(max(a, b), "is combined with values that no channel removal can shorten")
                continue
            a, b = self.find(a), self.find(b)
            if a != b:
                low, high = min(a, b), max(a, b)
                self._parent[high] = low
                if high in self._reason:
                    self._reason.setdefault(low, self._reason[high])
            if summed:
                self._summed.add(b)
                self._summed.add(a)

    def freeze(self, labels: Tensor | Iterable[int], reason: str) -> None:
        """Marks channels as not removable; the first reason given stays."""
        values = np.unique(np.asarray(labels)).tolist() if isinstance(labels, Tensor) else labels
        for label in values:
            self._freeze_one(label, reason)

    def _freeze_one(self, label: int, reason: str) -> None:
        if label != FIXED:
            self._reason.setdefault(self.find(label), reason)

    def reason(self, root: int) -> str | None:
        """Why the class of ``root`` is frozen, or ``None``."""
        return self._reason.get(root)

    def frozen(self, labels: Tensor) -> bool:
        """Whether all of these channels are."""
        return all(root == FIXED or root in self._reason for root in self.roots(labels).flat)

    def summed(self) -> set[int]:
        """Representatives of the classes that meet in an addition."""
        return {self.find(label) for label in self._summed}

    def norm(self, labels: Tensor) -> None:
        """Marks channels that a norm averages over."""
        self._normed.update(np.unique(labels.numpy()).tolist())

    def normed(self) -> set[int]:
        """Representatives of the classes that a norm averages over."""
        return {self.find(label) for label in self._normed if label != FIXED}


def varying(labels: Tensor) -> list[int]:
    """The dims along which the label changes."""
    return [
        dim
        for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True))
        if size > 1 and stride != 0 and not bool((labels == labels.narrow(dim, 0, 1)).all())
    ]


def compact(labels: Tensor) -> Tensor:
    """The same labels with stride 0 wherever they are constant."""
    return constant_except(labels, varying(labels))


def constant_except(labels: Tensor, dims: Iterable[int]) -> Tensor:
    """The same shape, holding along every dim but ``dims`` what stands at index 0."""
    shape, keep = labels.shape, set(dims)
    for dim in range(labels.dim()):
        if dim not in keep and shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels.expand(shape)


def profile(labels: Tensor, dim: int) -> Tensor | None:
    """Labels along one dim ``[size]``, or ``None`` if they also change along another."""
    dim %= labels.dim()
    if any(other != dim for other in varying(labels)):
        return None
    for other in range(labels.dim()):
        if other != dim:
            labels = labels.narrow(other, 0, 1)
    return labels.reshape(-1)


def shrink_constant_dims(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Label tensors of one shape cut to size 1 along every dim that all of them are constant (stride 0) along."""
    for dim in range(tensors[0].dim()):
        if tensors[0].shape[dim] > 1 and all(tensor.stride(dim) == 0 for tensor in tensors):
            tensors = tuple(tensor.narrow(dim, 0, 1) for tensor in tensors)
    return tensors
