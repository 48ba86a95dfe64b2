"""A program's graph with real modules again: it trains, prunes and exports like the network it came from.

Convolutions, linear layers, BatchNorm and dropout become ``nn`` modules under the names their weights had in the user's
class, so ``state_dict()`` keys are the user's own. Everything else stays the aten call it was. The result is a
``torch.fx.GraphModule`` in eval mode; ``module.meta["inputs"]`` and ``["bounds"]`` say what to call and export it with,
``["names"]`` gives the user's name of each tensor that is called otherwise here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruners.errors import InvalidInput, reason
from pruners.graph import ops
from pruners.graph.fold import fold
from pruners.graph.program import Node, Program, Ref

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MISFITS = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError, StopIteration)
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def build_module(program: Program) -> fx.GraphModule:
    """The trainable network of a program.

    Raises:
        InvalidInput: weights whose shapes do not fit the operators that use them.
    """
    return _Builder(fold(program)).build()


class _Builder:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._values: dict[str, fx.Node] = {}
        self._dropouts = 0
        self._folders = {name.partition(".")[0] for name in program.tensors}
        self._taken: set[str] = set()
        self._renamed: dict[str, str] = {}
        # One Parameter per tensor object, so tied weights stay tied.
        self._parameters: dict[int, nn.Parameter] = {}

    def build(self) -> fx.GraphModule:
        program = self._program
        for value in program.inputs:
            self._values[value.name] = self._graph.placeholder(value.name)
        for node in program.nodes:
            try:
                created = self._module_call(node) or self._function_call(node)
            except _MISFITS as error:
                raise InvalidInput(
                    "model", None, f"calls {node.target} with arguments that do not fit ({reason(error)})"
                ) from error
            created.meta["module"] = node.module
            if isinstance(node.outputs, str):
                self._values[node.outputs] = created
            else:
                for index, name in enumerate(node.outputs):
                    self._values[name] = self._graph.call_function(ops.ITEM, (created, index))
        self._graph.output(self._resolve(program.outputs))
        module = fx.GraphModule(self._root, self._graph)
        module.meta["inputs"] = program.inputs
        module.meta["bounds"] = program.bounds
        module.meta["names"] = self._renamed
        return module.eval()

    def _function_call(self, node: Node) -> fx.Node:
        return self._graph.call_function(node.target, self._resolve(node.args), self._resolve(node.kwargs))

    def _module_call(self, node: Node) -> fx.Node | None:
        make = _MAKERS.get(ops.name_of(node.target).partition(".")[0])
        made = make(self, node) if make else None
        if made is None:
            return None
        path, module = made
        if not self._attach(path, module):
            return None
        return self._graph.call_module(path, (self._resolve(node.args[0]),))

    def _attach(self, path: str, module: nn.Module) -> bool:
        """Puts a module in its place; not if one with other settings or tensors is there, as calls may share weights."""
        parent = self._root
        *folders, leaf = path.split(".")
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        known = parent._modules.get(leaf)
        if type(known) is nn.Module:  # holds what was put below this module before
            module._modules.update(known._modules)
            module._parameters.update(known._parameters)
            module._buffers.update(known._buffers)
        elif known is not None:
            return _same(known, module)
        parent.add_module(leaf, module.eval())
        return True

    def conv(self, node: Node) -> tuple[str, nn.Module] | None:
        """``convNd(input, weight, bias, stride, padding, dilation, groups)``."""
        _, weight_ref, bias_ref, stride, padding, dilation, groups = node.args
        owner = self._owner({"weight": weight_ref, "bias": bias_ref})
        if owner is None:
            return None
        path, (weight, bias) = owner
        with torch.device("meta"):
            module = _CONV[weight.dim() - 2](
                weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), _spread(stride, weight.dim() - 2),
                padding if isinstance(padding, str) else _spread(padding, weight.dim() - 2),
                _spread(dilation, weight.dim() - 2), groups, bias is not None,
            )  # fmt: skip
        return path, self._filled(module, weight=weight, bias=bias)

    def conv_transpose(self, node: Node) -> tuple[str, nn.Module] | None:
        """``conv_transposeNd(input, weight, bias, stride, padding, output_padding, groups, dilation)``."""
        _, weight_ref, bias_ref, stride, padding, output_padding, groups, dilation = node.args
        owner = self._owner({"weight": weight_ref, "bias": bias_ref})
        if owner is None:
            return None
        path, (weight, bias) = owner
        dims = weight.dim() - 2
        with torch.device("meta"):
            module = _CONV_TRANSPOSE[dims](
                weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), _spread(stride, dims),
                _spread(padding, dims), _spread(output_padding, dims), groups, bias is not None, _spread(dilation, dims),
            )  # fmt: skip
        return path, self._filled(module, weight=weight, bias=bias)

    def linear(self, node: Node) -> tuple[str, nn.Module] | None:
        """``linear(input, weight, bias)``."""
        _, weight_ref, bias_ref = node.args
        owner = self._owner({"weight": weight_ref, "bias": bias_ref})
        if owner is None:
            return None
        path, (weight, bias) = owner
        with torch.device("meta"):
            module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        return path, self._filled(module, weight=weight, bias=bias)

    def batch_norm(self, node: Node) -> tuple[str, nn.Module] | None:
        """``batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled)``."""
        source, weight_ref, bias_ref, mean_ref, var_ref, _, momentum, eps, _ = node.args
        owner = self._owner({"running_mean": mean_ref, "running_var": var_ref, "weight": weight_ref, "bias": bias_ref})
        if owner is None:
            return None
        path, (mean, var, weight, bias) = owner
        with torch.device("meta"):
            kind = _BATCH_NORM[self._rank(source)]
            module = kind(mean.shape[0], eps, momentum, affine=weight is not None)
        counter = self._program.tensors.get(f"{path}.num_batches_tracked", torch.tensor(0))
        return path, self._filled(
            module, running_mean=mean, running_var=var, weight=weight, bias=bias, num_batches_tracked=counter
        )

    def dropout(self, node: Node) -> tuple[str, nn.Module]:
        """``dropout(input, p, train)``: active in training again, whatever the flag was when it was exported."""
        self._dropouts += 1
        while f"dropout_{self._dropouts}" in self._folders:
            self._dropouts += 1
        name = ops.name_of(node.target).partition(".")[0]
        kind = nn.Dropout2d if name.startswith("feature") else nn.Dropout
        return f"dropout_{self._dropouts}", kind(node.args[1], inplace=name.endswith("_"))

    def _owner(self, slots: dict[str, Ref | None]) -> tuple[str, list[Any]] | None:
        """The module path whose tensors these are, and the tensors; ``None`` unless all are one module's own."""
        tensors = [None if ref is None else self._tensor(ref) for ref in slots.values()]
        given = [(slot, tensor) for slot, tensor, ref in zip(slots, tensors, slots.values(), strict=True) if ref is not None]
        if next(iter(slots.values())) is None or any(tensor is None for _, tensor in given):
            return None
        candidates = [self._homes(tensor, slot) for slot, tensor in given]
        common = [path for path in candidates[0] if all(path in paths for paths in candidates)]
        if not common:
            return None
        # Layers that share all their tensors appear once under each of their names.
        path = next((path for path in common if path not in self._taken), common[0])
        self._taken.add(path)
        for slot, _ in given:
            if f"{path}.{slot}" not in self._program.tensors:
                self._renamed[f"{path}.{slot}"] = f"{path}_{slot}"
        return path, tensors

    def _tensor(self, ref: Ref) -> Tensor | None:
        name = self._program.weights.get(ref.name)
        return None if name is None else self._program.tensors[name]

    def _homes(self, tensor: Tensor | None, slot: str) -> list[str]:
        """The modules that hold this very tensor as their ``slot``.

        ``attention.in_proj_weight`` (``nn.MultiheadAttention``) is taken as the weight of a module ``attention.in_proj``.
        """
        names = [name for name, held in self._program.tensors.items() if held is tensor]
        return [
            name[: -len(slot) - 1] for name in names if name.endswith((f".{slot}", f"_{slot}")) and len(name) > len(slot) + 1
        ]

    def _rank(self, source: Any) -> int:
        """The rank of a value: that of the producing layer's weight, or of the network's input."""
        node = self._values[source.name]
        while node.op != "placeholder":
            if node.op == "get_attr":
                return self._program.tensors[str(node.target)].dim()
            if node.op == "call_module":
                module = self._root.get_submodule(str(node.target))
                if isinstance(module, _Convolution):
                    return module.weight.dim()
                if isinstance(module, nn.Linear):
                    return 2
            node = node.all_input_nodes[0]
        return len(next(value.shape for value in self._program.inputs if value.name == node.name))

    def _filled(self, module: nn.Module, **tensors: Tensor | None) -> nn.Module:
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            declared = getattr(module, name)
            if declared.shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)} where {tuple(declared.shape)} is needed")
            if name in module._parameters:
                setattr(module, name, self._parameter(tensor))
            else:
                module._buffers[name] = tensor
        return module

    def _parameter(self, tensor: Tensor) -> nn.Parameter:
        return self._parameters.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self._values.get(value.name) or self._raw(value.name)
        if isinstance(value, tuple | list):
            return type(value)(self._resolve(item) for item in value)
        if isinstance(value, dict):
            return {key: self._resolve(item) for key, item in value.items()}
        return value

    def _raw(self, value: str) -> fx.Node:
        """A weight used outside a module: fetched under its own name."""
        name = self._program.weights[value]
        tensor = self._program.tensors[name]
        *folders, leaf = name.split(".")
        parent = self._root
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        if leaf not in parent._parameters and leaf not in parent._buffers:
            if name in self._program.parameters:
                parent.register_parameter(leaf, self._parameter(tensor))
            else:
                parent.register_buffer(leaf, tensor)
        node = self._graph.get_attr(name)
        self._values[value] = node
        return node


_MAKERS: dict[str, Callable[[_Builder, Node], tuple[str, nn.Module] | None]] = {
    "conv1d": _Builder.conv,
    "conv2d": _Builder.conv,
    "conv3d": _Builder.conv,
    "conv_transpose1d": _Builder.conv_transpose,
    "conv_transpose2d": _Builder.conv_transpose,
    "conv_transpose3d": _Builder.conv_transpose,
    "linear": _Builder.linear,
    "batch_norm": _Builder.batch_norm,
    "dropout": _Builder.dropout,
    "dropout_": _Builder.dropout,
    "feature_dropout": _Builder.dropout,
    "feature_dropout_": _Builder.dropout,
}


def _same(known: nn.Module, module: nn.Module) -> bool:
    """Whether two modules have the same settings and hold the same tensors, a BatchNorm's counter aside."""
    pairs = [{**one._parameters, **one._buffers} for one in (known, module)]
    names = [name for name in pairs[1] if name != "num_batches_tracked"]
    return str(known) == str(module) and all(pairs[0].get(name) is pairs[1][name] for name in names)


def _spread(value: Any, dims: int) -> tuple[int, ...]:
    """The schema's ``[1]`` for "1 in every dim", as modules want it."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * dims if len(values) == 1 else values)
