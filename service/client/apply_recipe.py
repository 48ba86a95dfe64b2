"""Shrinks an object of your own network class as a Secateur recipe says.

This file stands alone: copy it beside your code. It needs torch and safetensors, and nothing else of Secateur.

    from apply_recipe import apply_recipe
    smaller = apply_recipe(MyNetwork(), "job.json", "job.safetensors")

The two files are what ``secateur pull JOB`` gives with ``--format recipe`` and ``--format safetensors``.

Sizes that your ``forward`` computes from its inputs or its modules follow by themselves. Numbers that it takes from attributes
of its own, such as a number of heads, have to be stated.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_FITTING = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)  # their sizes follow their weights


def apply_recipe(
    model: nn.Module, recipe: str | Path, weights: str | Path, attributes: Mapping[str, Mapping[str, Any]] | None = None
) -> nn.Module:
    """The pruned network in your class, in eval mode; ``model`` is left as it is.

    Args:
        model: of the architecture that was pruned; its weights do not matter.
        recipe: the file that says what was removed.
        weights: the ``.safetensors`` file of the same job.
        attributes: of modules by their paths, what they are to be besides what the recipe says, as in
            ``{"encoder.0.attention": {"heads": 2}}``.

    Raises:
        ValueError: the network is of another architecture than the recipe's, or ``attributes`` says nothing of a module whose
            code counts channels.
    """
    read, attributes = json.loads(Path(recipe).read_text()), attributes or {}
    smaller = copy.deepcopy(model).cpu()
    modules = dict(smaller.named_modules(remove_duplicate=False))
    for number in read["constants"]:
        if number["module"] not in attributes and not isinstance(modules.get(number["module"]), _FITTING):
            raise ValueError(
                f"in forward of {number['module'] or 'the network'} a {number['call']} with {number['dense']} becomes one with "
                f"{number['pruned']}; say what attributes of that module make it so, or use the .pt2 file"
            )
    dense = dict([*smaller.named_parameters(remove_duplicate=False), *smaller.named_buffers(remove_duplicate=False)])
    cut: dict[int, Tensor] = {}  # by the dense tensor, so that tied ones stay tied
    for name, dims in read["keep"].items():
        if name not in dense:
            raise ValueError(f"it has no {name}, of which the recipe removes something")
        small = dense[name].detach()
        for dim, kept in dims.items():
            if int(dim) >= small.dim() or max(kept) >= small.shape[int(dim)]:
                raise ValueError(f"{name} has the shape {list(dense[name].shape)}, too small for what the recipe keeps of it")
            small = small.index_select(int(dim), torch.tensor(kept))
        is_parameter = isinstance(dense[name], nn.Parameter)
        cut[id(dense[name])] = nn.Parameter(small, dense[name].requires_grad) if is_parameter else small
    for module in modules.values():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: cut.get(id(tensor), tensor) for name, tensor in tensors.items()})
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
        elif isinstance(module, nn.GroupNorm) and module.weight is not None:
            module.num_channels = len(module.weight)
    for path, values in [*read["attributes"].items(), *attributes.items()]:
        if path not in modules:
            raise ValueError(f"it has no module {path}, which is to shrink")
        for name, value in values.items():
            setattr(modules[path], name, tuple(value) if isinstance(value, list) else value)
    state = load_file(weights)
    state.update({name: state[holder] for name, holder in read["tied"].items()})
    try:
        smaller.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from error
    return smaller.eval()
