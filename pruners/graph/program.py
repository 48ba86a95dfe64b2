"""The safe reader of ``.pt2`` programs: graph JSON and raw weight bytes, nothing else.

``torch.export.load`` must never see an upload: it unpickles example inputs, constants and weights and evaluates expression
strings. This reader parses the JSON itself, admits only the operators of ``pruners.graph.ops`` and builds tensors from bytes
after checking dtype, shape, strides and offset against the storage. Symbolic size expressions are compared, never evaluated.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruners.errors import InvalidInput, UnsafeProgram
from pruners.graph import ops
from pruners.graph.archive import Archive
from pruners.graph.tensors import DTYPES, read_tensors

_SCHEMA_MAJOR = 8  # what torch 2.8 to 2.13 write
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
_RESERVED = frozenset(dir(nn.Module())) - {"T_destination"}
_ONE_VALUE: list[Any] = [1, {"type": None}]  # the serialized structure of a single output
_BATCH_HINT = 2  # the size that a dynamic dim takes where the program states none


@dataclass(frozen=True)
class Ref:
    """The value that a node, an input or a weight produces, by name."""

    name: str


@dataclass(frozen=True)
class Node:
    """One operator call: ``args`` may hold ``Ref`` at any depth.

    ``outputs`` are the names it defines: a string for one value, a tuple for several.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: str | tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """A tensor that the caller passes: ``shape`` holds a symbol's name where a dim is dynamic, with its bounds aside."""

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype

    def example(self, batch: int = _BATCH_HINT) -> Tensor:
        """Zeros of this shape, every dynamic dim ``batch`` long."""
        return torch.zeros([batch if isinstance(size, str) else size for size in self.shape], dtype=self.dtype)


@dataclass(frozen=True)
class Program:
    """An exported network as data.

    Attributes:
        inputs: what the caller passes, in order.
        weights: value name → the tensor's name in ``tensors``, for parameters, buffers and constants.
        parameters: the names in ``tensors`` that are trainable parameters.
        tensors: by the dotted name they had in the user's module; tied ones are one object.
        nodes: in the order of execution.
        outputs: the returned structure: ``Ref`` or constants in tuples, lists and dicts.
        bounds: per dynamic symbol the least and (if any) the greatest size.
    """

    inputs: tuple[Input, ...]
    weights: dict[str, str]
    parameters: frozenset[str]
    tensors: dict[str, Tensor]
    nodes: tuple[Node, ...]
    outputs: Any
    bounds: dict[str, tuple[int, int | None]]


def read_program(path: Path | str) -> Program:
    """Reads a ``.pt2`` file.

    Raises:
        InvalidInput: not such a file, damaged, or with something that cannot be handled; the sentence names it.
        UnsafeProgram: parts that could run code.
    """
    with Archive(Path(path)) as archive:
        document = archive.json("models/model.json")
        version = _get(_get(document, "schema_version", dict), "major", int)
        if version != _SCHEMA_MAJOR:
            raise _bad(f"has program schema {version}, but only {_SCHEMA_MAJOR} is read; export it with torch 2.8 to 2.13")
        try:
            return _Reader(document).program(read_tensors(archive))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            raise _bad(f"holds a malformed graph ({type(error).__name__}: {error}); export it again") from error


class _Reader:
    def __init__(self, document: dict[str, Any]) -> None:
        module = document["graph_module"]
        self._graph = module["graph"]
        self._signature = module["signature"]
        self._calls = module["module_call_graph"]
        self._ranges = document["range_constraints"]
        self._symbols: dict[str, str] = {}  # expression string → the symbol's name
        self._defined: set[str] = set()

    def program(self, tensors: dict[str, Tensor]) -> Program:
        inputs: list[Input] = []
        weights: dict[str, str] = {}
        parameters: set[str] = set()
        for spec in self._signature["input_specs"]:
            (kind, body), *_ = spec.items()
            if kind == "user_input":
                inputs.append(self._input(body["arg"]))
                continue
            key = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
            if kind not in key:
                raise _bad(f"takes an input of kind {kind!r}; only tensors are handled", unsafe=kind == "custom_obj")
            value, name = self._define(body["arg"]["name"]), _get(body, key[kind], str)
            if not _PATH.fullmatch(name) or any(part in _RESERVED for part in name.split(".")):
                raise _bad(f"names a tensor {name!r}, which no module could hold; rename it", unsafe=True)
            if name not in tensors:
                raise _bad(f"has no data for its tensor {name!r}; export it again")
            weights[value] = name
            if kind == "parameter":
                parameters.add(name)
        nodes = tuple(node for raw in self._graph["nodes"] if (node := self._node(raw, weights, tensors)) is not None)
        used = {id(tensors[name]) for name in weights.values()}
        return Program(
            inputs=tuple(inputs),
            weights=weights,
            parameters=frozenset(parameters),
            tensors={name: tensor for name, tensor in tensors.items() if id(tensor) in used},
            nodes=nodes,
            outputs=self._outputs(),
            bounds={
                symbol: (
                    max(int(self._ranges.get(symbol, {}).get("min_val") or 0), 0),
                    self._ranges.get(symbol, {}).get("max_val"),
                )
                for symbol in self._symbols.values()
            },
        )

    def _input(self, argument: dict[str, Any]) -> Input:
        if "as_tensor" not in argument:
            raise _bad(f"takes an input that is no tensor ({', '.join(argument)}); export it with tensors as its only inputs")
        name = self._define(argument["as_tensor"]["name"])
        meta = self._graph["tensor_values"][name]
        return Input(name, tuple(self._size(size) for size in meta["sizes"]), DTYPES[meta["dtype"]])

    def _size(self, size: dict[str, Any]) -> int | str:
        if "as_int" in size:
            return int(_get(size, "as_int", int))
        expression = _get(size["as_expr"], "expr_str", str)
        if expression not in self._symbols:
            known = [symbol for symbol in self._ranges if f"'{symbol}'" in expression]
            if len(known) != 1 or not expression.startswith("Symbol("):
                raise _bad("has an input size that is computed from another; export it with a plain dynamic dimension")
            self._symbols[expression] = known[0]
        return self._symbols[expression]

    def _node(self, raw: dict[str, Any], weights: dict[str, str], tensors: dict[str, Tensor]) -> Node | None:
        target = _get(raw, "target", str)
        operator = ops.resolve(target)
        if operator is None:
            raise _bad(f"uses the operator {target}, which is not among those handled; write that part with others")
        given = {entry["name"]: self._argument(entry["arg"]) for entry in raw["inputs"]}
        if isinstance(operator, torch._ops.OpOverload):
            args, kwargs = _bind(operator, given)
        else:
            args, kwargs = tuple(given.values()), {}
        first = args[0] if args else None
        if isinstance(first, Ref) and first.name in weights and _writes(operator):
            if weights[first.name].endswith("num_batches_tracked"):
                return None  # BatchNorm's counter, bumped by programs exported in training mode; the module keeps its own
            raise _bad(f"changes its own tensor {weights[first.name]!r} while it runs; export it in eval mode")
        return Node(operator, args, kwargs, self._results(raw["outputs"]))

    def _results(self, outputs: list[dict[str, Any]]) -> str | tuple[str, ...]:
        names: list[str] = []
        several = len(outputs) != 1
        for output in outputs:
            (kind, body), *_ = output.items()
            if kind == "as_tensor":
                names.append(self._define(body["name"]))
            elif kind == "as_tensors":
                several = True
                names.extend(self._define(item["name"]) for item in body)
            elif kind in ("as_sym_int", "as_sym_bool"):
                names.append(self._define(body["as_name"]))
            else:
                raise _bad(f"has an operator that returns {kind!r}, which is not handled")
        return tuple(names) if several else names[0]

    def _argument(self, argument: dict[str, Any]) -> Any:
        (kind, body), *_ = argument.items()
        if kind == "as_none":
            return None
        if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"):
            return body
        if kind == "as_tensor":
            return self._use(body["name"])
        if kind in ("as_tensors", "as_optional_tensors"):
            return [self._optional(item) for item in body]
        if kind in ("as_sym_int", "as_sym_bool"):
            return self._symbolic(body)
        if kind == "as_sym_ints":
            return [self._symbolic(item) for item in body]
        if kind == "as_scalar_type":
            return DTYPES[body]
        if kind == "as_memory_format":
            return _MEMORY_FORMATS[body]
        if kind == "as_layout":
            return torch.strided
        if kind == "as_device":
            return None  # the network runs wherever its weights are
        raise _bad(
            f"passes an argument of kind {kind!r}, which is not handled",
            unsafe=kind in ("as_custom_obj", "as_operator"),
        )

    def _optional(self, item: dict[str, Any]) -> Ref | None:
        item = item.get("as_tensor", item)
        return self._use(item["name"]) if "name" in item else None

    def _symbolic(self, item: dict[str, Any]) -> Any:
        return self._use(item["as_name"]) if "as_name" in item else next(iter(item.values()))

    def _outputs(self) -> Any:
        for spec in self._signature["output_specs"]:
            if "user_output" not in spec:
                raise _bad(f"changes state as an output ({', '.join(spec)}); export it in eval mode")
        flat = iter([self._argument(spec["user_output"]["arg"]) for spec in self._signature["output_specs"]])
        root = next((call for call in self._calls if call["fqn"] == ""), None)
        structure = json.loads(root["signature"]["out_spec"]) if root and root["signature"] else _ONE_VALUE
        return _structure(structure[1], flat)

    def _define(self, name: str) -> str:
        # torch.fx writes value names into Python source and runs it: nothing but an identifier may pass.
        if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
            raise _bad(f"names a value {name!r}, which is no identifier; export it again", unsafe=True)
        if name in self._defined:
            raise _bad(f"defines the value {name!r} twice; export it again")
        self._defined.add(name)
        return name

    def _use(self, name: str) -> Ref:
        if name not in self._defined:
            raise _bad(f"uses the value {name!r} before it is defined; export it again")
        return Ref(name)


def _structure(spec: dict[str, Any], flat: Any) -> Any:
    kind = spec["type"]
    if kind is None:
        return next(flat)
    children = [_structure(child, flat) for child in spec["children_spec"]]
    if kind == "builtins.tuple":
        return tuple(children)
    if kind == "builtins.list":
        return children
    if kind == "builtins.dict":
        return dict(zip(json.loads(spec["context"]), children, strict=True))
    raise _bad(f"returns a {kind}; export it with a tensor, tuple, list or dict as its output")


def _bind(operator: torch._ops.OpOverload, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by name → positional ones, defaults filled in, and keyword-only ones."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in operator._schema.arguments:
        if parameter.name in given:
            value = given.pop(parameter.name)
        elif parameter.has_default_value():
            value = parameter.default_value
        else:
            raise _bad(f"calls {operator} without {parameter.name!r}; export it again")
        if not parameter.kwarg_only:
            args.append(value)
        elif not parameter.has_default_value() or value != parameter.default_value:
            kwargs[parameter.name] = value
    if given:
        raise _bad(f"calls {operator} with the unknown arguments {', '.join(given)}; export it again")
    return tuple(args), kwargs


def _writes(operator: Callable[..., Any]) -> bool:
    return isinstance(operator, torch._ops.OpOverload) and bool(operator._schema.is_mutable)


def _get(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{key} is {value!r}")
    return value


def _bad(problem: str, unsafe: bool = False) -> InvalidInput:
    return (UnsafeProgram if unsafe else InvalidInput)("model", None, problem)
