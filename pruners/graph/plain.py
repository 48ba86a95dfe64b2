"""A network as torch.export takes and saves it without complaint."""

from __future__ import annotations

import copy
from itertools import chain

from torch import nn


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU and in eval mode, every tensor contiguous.

    Of one in channels last, torch would take each weight for a part of a larger one, and warn that it saves no whole.
    """
    plain = copy.deepcopy(model).cpu().eval()
    for tensor in chain(plain.parameters(), plain.buffers()):
        tensor.data = tensor.data.contiguous()
    return plain
