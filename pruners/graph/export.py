"""A network in memory as a ``.pt2`` file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from pruners.errors import InvalidInput, reason

_BATCH = 2  # the least example batch that torch.export keeps dynamic: it treats sizes 0 and 1 as constants


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU and in eval mode, every tensor contiguous.

    Of one in channels last, torch would take each weight for a part of a larger one, and warn that it saves no whole.
    """
    plain = copy.deepcopy(model).cpu().eval()
    for tensor in chain(plain.parameters(), plain.buffers()):
        tensor.data = tensor.data.contiguous()
    return plain


def write_program(model: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """Writes a network, as it is used for inference, on the CPU and for any batch size, to the ``.pt2`` file ``path``.

    Args:
        model: is copied, not changed.
        inputs: an example of each, ``[batch, …]``; batches of one are doubled.

    Raises:
        InvalidInput: torch cannot export it, or not write down what it exported; says why.
    """
    examples = tuple(torch.cat([x] * _BATCH) if len(x) < _BATCH else x for x in (x.detach().cpu() for x in inputs))
    shapes = tuple({0: torch.export.Dim("batch")} for _ in examples)
    try:
        program = torch.export.export(plain_copy(model), examples, dynamic_shapes=shapes)
        with path.open("wb") as file:
            torch.export.save(program, file)
    except OSError:  # of the file
        raise
    except Exception as error:  # whatever the user's forward, or torch about it, raises
        raise InvalidInput("model", None, f"cannot be exported by torch.export: {reason(error)}") from error
