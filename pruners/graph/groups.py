"""What tracing finds: groups of coupled channels, where each of them sits, and what the network costs without some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pruners.cost import CostModel
from pruners.errors import InvalidInput

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Channels that may be removed one class at a time, each with everything coupled to it.

    Where a layer's channels form a table, heads × the width of a head, they belong to two groups that cross: one's classes
    are the table's rows (whole heads), the other's its columns (the same place of every head), and a channel stays if its row
    and its column do. Both groups' ``width`` counts all of the layer's channels, so that such a layer keeps

        (kept of rows / divisor of rows) · (kept of columns / divisor of columns)

    channels, times as often as the table occurs in it (3 where query, key and value come out of one layer).

    Attributes:
        name: the first layer that produces them; whole heads add ``.heads``.
        width: channels of that layer in this group.
        divisor: how many of them go together (more than 1 in grouped convolutions and attention).
        minimum: the least width; a group is never emptied.
        layers: all layers that produce these channels, in the order of execution.
        types: their module types, such as ``Conv2d``.
        residual: whether they are summed with others' channels: the stream of a residual network.
        crosses_norm: whether a LayerNorm or GroupNorm averages over them, or a convolution slides over them (ECA): then
            removing them changes what stays, and a network with them masked is another network than one without them.
        frozen_reason: why none of them may be removed, or ``None``.
        classes: the ids of the channel classes, in the order of the first layer's channels.
    """

    name: str
    width: int
    divisor: int
    minimum: int
    layers: tuple[str, ...]
    types: tuple[str, ...]
    residual: bool
    crosses_norm: bool
    frozen_reason: str | None
    classes: Indices


@dataclass(frozen=True)
class Member:
    """One dim of a parameter or buffer whose positions are channels.

    Attributes:
        tensor: its name.
        dim: which of its dims.
        classes: the class of each position, -1 for those that stay for ever.
        output: whether these are the channels that a layer, norm or raw parameter puts out, rather than takes in.
    """

    tensor: str
    dim: int
    classes: Indices
    output: bool


@dataclass(frozen=True)
class Resize:
    """A number baked into the graph that counts channels: it becomes the count of those kept among ``classes``.

    Attributes:
        node: the node's name, or a module's path if ``attribute`` is set.
        position: the argument's place, and the place inside it if that is a list.
        attribute: the module's attribute instead of a node's argument.
    """

    node: str
    position: tuple[int, ...]
    classes: Indices
    attribute: str | None = None


@dataclass(frozen=True)
class Coupling:
    """The coupled channels of one network.

    Attributes:
        groups: all of them, frozen ones too, in the order of execution.
        members: every labelled dim of every parameter and buffer.
        resizes: the numbers to rewrite when channels go.
        cost: its costs by the widths of ``prunable``, in that order.
        layers: per layer that produces channels, its weight's dim that holds them.
        factors: per class id the two that it stays with ``[classes, 2]``: of a channel in two groups that cross its row and
            its column, of any other class twice itself.
    """

    groups: tuple[Group, ...]
    members: tuple[Member, ...]
    resizes: tuple[Resize, ...]
    cost: CostModel
    layers: dict[str, int]
    factors: Indices

    @property
    def classes(self) -> int:
        """How many class ids there are."""
        return len(self.factors)

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that are not frozen: the variables of a search."""
        return tuple(group for group in self.groups if group.frozen_reason is None)

    def frozen(self, reasons: Mapping[str, str]) -> Coupling:
        """The same coupling with some of its prunable groups, by name, frozen for these reasons."""
        groups = tuple(replace(group, frozen_reason=reasons.get(group.name, group.frozen_reason)) for group in self.groups)
        widths = {place: group.width for place, group in enumerate(self.prunable) if group.name in reasons}
        return replace(self, groups=groups, cost=self.cost.with_constants(widths))

    def shrunk(self, keep: Sequence[Indices]) -> Coupling:
        """The coupling of the network that ``shrink`` makes with ``keep``, which may so be shrunk again.

        Classes keep their ids, layers and nodes their names. ``cost`` is by the same widths as before: those of a group that
        kept some are counted as they were, in channels of the whole network.
        """
        kept = self.kept(keep)
        by_group = {
            group.name: replace(group, width=len(indices) * group.divisor, classes=group.classes[indices])
            for group, indices in zip(self.prunable, keep, strict=True)
        }
        return replace(
            self,
            groups=tuple(by_group.get(group.name, group) for group in self.groups),
            members=tuple(replace(member, classes=member.classes[positions(member, kept)]) for member in self.members),
            resizes=tuple(
                replace(resize, classes=resize.classes[np.where(resize.classes >= 0, kept[resize.classes], True)])
                for resize in self.resizes
            ),
        )

    def kept(self, keep: Sequence[Indices]) -> NDArray[np.bool_]:
        """Which classes stay, ``[classes]``, given the kept indices into each prunable group's ``classes``.

        Raises:
            InvalidInput: a group would be emptied, or an index is out of range or repeated.
        """
        kept = np.ones(self.classes, dtype=np.bool_)
        for group, indices in zip(self.prunable, keep, strict=True):
            if len(indices) * group.divisor < group.minimum or len(np.unique(indices)) != len(indices):
                raise InvalidInput("keep", group.name, f"must name {group.minimum} or more distinct channels")
            if min(indices) < 0 or max(indices) >= len(group.classes):
                raise InvalidInput("keep", group.name, f"names a channel beyond its {len(group.classes)}")
            kept[group.classes] = False
            kept[group.classes[indices]] = True
        rows, columns = self.factors.T
        both: NDArray[np.bool_] = kept[rows] & kept[columns]
        return both

    def layer_widths(self, widths: Sequence[int]) -> dict[str, tuple[int, int]]:
        """Output channels of each prunable layer as ``(kept, dense)``, given the widths of ``prunable``."""
        share = {group.name: width / group.width for group, width in zip(self.prunable, widths, strict=True)}
        result: dict[str, tuple[int, int]] = {}
        by_class = np.zeros(self.classes)
        for group in self.groups:
            by_class[group.classes] = share.get(group.name, 1.0)
        rows, columns = self.factors.T
        by_class = np.where(rows == columns, by_class, by_class[rows] * by_class[columns])
        for layer, member in self.outputs():
            parts = np.where(member.classes >= 0, by_class[member.classes], 1.0)
            result[layer] = (round(float(parts.sum())), len(parts))
        return result

    def outputs(self) -> list[tuple[str, Member]]:
        """Each layer that produces prunable channels, and the member that says which."""
        weights = {(member.tensor, member.dim): member for member in self.members}
        prunable = {layer for group in self.prunable for layer in group.layers}
        return [(layer, weights[f"{layer}.weight", dim]) for layer, dim in self.layers.items() if layer in prunable]


def positions(member: Member, kept: NDArray[np.bool_]) -> Indices:
    """The positions of a member that stay, ascending."""
    return np.flatnonzero(np.where(member.classes >= 0, kept[member.classes], True))
