"""Channel labels: which channels of which tensors stand or fall together.

A label tensor has the shape of an activation and holds, at each position, the label of the channel it belongs to, or
``FIXED`` where nothing may be removed. Dims along which the label is constant are kept at stride 0, so a label tensor of any
size costs little memory. ``Labels`` unites labels and freezes them with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]

FIXED = -1
"""The label of positions that belong to no removable channel, such as a network's input."""


class Labels:
    """All labels handed out so far, and what was stated of them: which are one, which are frozen and why.

    Statements are merely kept, and drawn together once, all at a time, when the first question is asked.
    """

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[Indices] = [np.empty((2, 0), dtype=np.int64)]
        self._frozen: list[tuple[Indices, str]] = []
        self._summed: list[Indices] = []
        self._normed: list[Indices] = []

    def __len__(self) -> int:
        return self._count

    def fresh(self, count: int) -> Tensor:
        """``count`` new labels ``[count]``."""
        self._count += count
        return torch.arange(self._count - count, self._count)

    def unite(self, first: Tensor, second: Tensor, *, summed: bool = False) -> None:
        """Makes labels at equal positions one; a channel that meets a ``FIXED`` position is frozen.

        Args:
            first: labels.
            second: labels of the same shape.
            summed: the two are added, which marks a residual stream.
        """
        first, second = shrink_constant_dims(first, second)
        pairs = np.stack([first.reshape(-1).numpy(), second.reshape(-1).numpy()])
        pairs = pairs[:, pairs[0] != pairs[1]]
        fixed = (pairs == FIXED).any(0)
        if fixed.any():
            self._freeze(pairs[:, fixed].max(0), "is combined with values that no channel removal can shorten")
            pairs = pairs[:, ~fixed]
        self._pairs.append(pairs)
        if summed:
            self._summed.append(pairs.reshape(-1))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Marks channels as not removable; the first reason given stays."""
        self._freeze(labels.reshape(-1).numpy(), reason)

    def _freeze(self, labels: Indices, reason: str) -> None:
        self._frozen.append((labels[labels != FIXED], reason))

    def norm(self, labels: Tensor) -> None:
        """Marks channels that a norm averages over."""
        channels = labels.reshape(-1).numpy()
        self._normed.append(channels[channels != FIXED])

    def roots(self, labels: Tensor | Indices) -> Indices:
        """Representatives of labels, in the same shape; ``FIXED`` stays."""
        found: Indices = self._root[np.asarray(labels)]
        return found

    def reason(self, root: int) -> str | None:
        """Why the class of ``root`` is frozen, or ``None``."""
        first = self._first_reason[root]
        return self._frozen[first][1] if first != FIXED else None

    def reasons(self, roots: Indices) -> Indices:
        """Per representative a number of 0 or more that tells apart why classes are frozen, or ``FIXED``."""
        texts = list(dict.fromkeys(reason for _, reason in self._frozen))
        number = np.array([*(texts.index(reason) for _, reason in self._frozen), FIXED])
        found: Indices = number[self._first_reason[roots]]
        return found

    def frozen(self, labels: Tensor) -> bool:
        """Whether all of these channels are."""
        roots = self.roots(labels)
        return bool(((roots == FIXED) | (self._first_reason[roots] != FIXED)).all())

    def summed(self) -> NDArray[np.bool_]:
        """Per label that represents a class whether it meets others in an addition, ``[labels + 1]``."""
        return self._among(self._summed)

    def normed(self) -> NDArray[np.bool_]:
        """Per label that represents a class whether a norm averages over it, ``[labels + 1]``."""
        return self._among(self._normed)

    def _among(self, labels: list[Indices]) -> NDArray[np.bool_]:
        found = np.zeros(self._count + 1, dtype=np.bool_)
        for each in labels:
            found[self._root[each]] = True
        return found

    @cached_property
    def _root(self) -> Indices:
        """The representative of every label, the least of its class, and ``FIXED`` at the end, where index -1 finds it."""
        parent = np.arange(self._count + 1)
        one, other = np.concatenate(self._pairs, axis=1)
        while len(one):  # each round hooks every class under a lower one that it meets, and flattens the trees
            np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
            while (parent != (above := parent[parent])).any():
                parent = above
            one, other = parent[one], parent[other]
            apart = one != other
            one, other = one[apart], other[apart]
        parent[-1] = FIXED
        return parent

    @cached_property
    def _first_reason(self) -> Indices:
        """Per label that represents a class the first of ``_frozen`` that speaks of it, or ``FIXED``."""
        first = np.full(self._count + 1, FIXED)
        for index, (labels, _) in reversed(list(enumerate(self._frozen))):
            first[self._root[labels]] = index
        return first


def varying(labels: Tensor) -> list[int]:
    """The dims along which the label changes."""
    dims = [dim for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)) if size > 1 and stride]
    core = _along(labels, dims).numpy()
    return [dim for place, dim in enumerate(dims) if bool((core != core.take([0], place)).any())]


def _along(labels: Tensor, dims: list[int]) -> Tensor:
    """Labels along some dims, at index 0 of all the others."""
    return labels.as_strided([labels.shape[d] for d in dims], [labels.stride(d) for d in dims], labels.storage_offset())


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
    return None if any(other != dim for other in varying(labels)) else line_along(labels, dim)


def line_along(labels: Tensor, dim: int) -> Tensor:
    """Labels along one dim ``[size]``, at index 0 of all the others."""
    return _along(labels, [dim % labels.dim()])


def shrink_constant_dims(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Label tensors of one shape cut to size 1 along every dim that all of them are constant (stride 0) along."""
    strides = [tensor.stride() for tensor in tensors]
    shape = [
        1 if all(stride == 0 for stride in along) else size for size, *along in zip(tensors[0].shape, *strides, strict=True)
    ]
    return tuple(
        tensor.as_strided(shape, stride, tensor.storage_offset()) for tensor, stride in zip(tensors, strides, strict=True)
    )
