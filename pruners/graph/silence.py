"""Silencing: the dense network with some channels silenced, the reference that real removal is checked against."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from pruners.graph.groups import Coupling, Indices


def silence(module: fx.GraphModule, coupling: Coupling, keep: Sequence[Indices]) -> fx.GraphModule:
    """A copy of the network in which removed channels say nothing: zero after their layer and its norm, and read by none.

    Sets to zero, at the positions of removed channels, every weight's output and input dim, bias, norm scale, norm shift,
    running mean and raw parameter. Its outputs equal those of the shrunk network, whatever an activation makes of zero,
    unless a LayerNorm or GroupNorm averages over the channels (``Group.crosses_norm``).

    Args:
        module: the network that ``coupling`` was traced on.
        coupling: its groups.
        keep: per prunable group the indices into ``Group.classes`` that stay.
    """
    kept = coupling.kept(keep)
    silent = copy.deepcopy(module)
    tensors: dict[str, Tensor] = {**dict(silent.named_parameters(remove_duplicate=False)), **dict(silent.named_buffers())}
    with torch.no_grad():
        for member in coupling.members:
            if not member.tensor.endswith("running_var"):  # of which zero would be no silence but a division by it
                gone = np.flatnonzero((member.classes >= 0) & ~kept[member.classes])
                tensors[member.tensor].index_fill_(member.dim, torch.from_numpy(gone), 0.0)
    return silent
