"""The safe reader of ``.pt2`` programs: graph JSON and raw weight bytes, nothing else.

``torch.export.load`` must never see an upload: it unpickles example inputs, constants and weights and evaluates expression
strings. This reader parses the JSON itself, admits only the operators of ``pruners.graph.ops`` and builds tensors from bytes
after checking dtype, shape, strides and offset against the storage. Symbolic size expressions are compared, never evaluated.

A program reads as the network in eval mode: what training mode baked in is taken out, and inputs are not written to.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pruners.errors import InvalidInput, UnsafeProgram, quote, reason
from pruners.graph import ops
from pruners.graph.archive import EXPORT, Archive, parse_json
from pruners.graph.tensors import DTYPES, MAX_DIMS, read_tensors

_SCHEMA_MAJOR = 8  # what torch 2.9 to 2.13 write
_DIALECT = "TRAINING"  # what torch.export.export makes; run_decompositions turns it into another
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}  # JSON has no numbers for these
_SYMBOL = re.compile(r"Symbol\('([A-Za-z_]\w*)'(, \w+=(True|False))*\)", re.ASCII)
_ONE_VALUE: list[Any] = [1, {"type": None}]  # the serialized structure of a single output
_MAX_INPUT_ELEMENTS = 2**28  # of the example that the network is traced with: 1 GiB of floats
_BATCH_HINT = 2  # the size that a dynamic dim takes where the program states none
# An input's name becomes a parameter of generated code, where these mean something else.
_RESERVED_INPUTS = frozenset({"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree"})
_TENSOR_KINDS = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
_CONSTANTS: dict[str, Any] = {"as_none": bool, "as_bool": bool, "as_int": int, "as_float": (float, int, str), "as_string": str}
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RecursionError)


@dataclass(frozen=True)
class Ref:
    """The value that a node, an input or a weight produces, by name."""

    name: str


@dataclass(frozen=True)
class Node:
    """One operator call: ``args`` may hold ``Ref`` at any depth.

    ``outputs`` are the names it defines: a string for one value, a tuple for several. ``module`` is the path of the module in
    whose ``forward`` the call stands, as far as the file says.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: str | tuple[str, ...]
    module: str = ""


@dataclass(frozen=True)
class Input:
    """A tensor that the caller passes.

    Attributes:
        shape: a symbol's name where a dim is dynamic; ``Program.bounds`` has its range.
        hints: per symbol in ``shape`` a size that the network runs on, within the bounds.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype
    hints: dict[str, int] = field(default_factory=dict)

    def sizes(self, batch: int | None = None) -> list[int]:
        """A shape that the network runs on, with the first dim's symbol ``batch`` long if that is given."""
        hints = dict(self.hints)
        if batch is not None and self.shape and isinstance(self.shape[0], str):
            hints[self.shape[0]] = batch
        return [hints.get(size, _BATCH_HINT) if isinstance(size, str) else size for size in self.shape]

    def example(self, batch: int | None = None) -> Tensor:
        """Zeros of the shape ``sizes(batch)``."""
        return torch.zeros(self.sizes(batch), dtype=self.dtype)


@dataclass(frozen=True)
class Program:
    """An exported network as data.

    Attributes:
        inputs: what the caller passes, in order; keyword inputs by their names, the tensors of nested ones one by one.
            Inputs that were constants (``None``, flags, numbers) when it was exported are part of the graph.
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


def read_program(source: Path | str | BinaryIO) -> Program:
    """Reads a ``.pt2`` file, or a stream of its bytes.

    Raises:
        OSError: the file cannot be opened.
        InvalidInput: not such a file, damaged, or with something that cannot be handled; the sentence names it.
        UnsafeProgram: parts that could run code.
    """
    with Archive(Path(source) if isinstance(source, str) else source) as archive:
        document = archive.json("models/model.json")
        try:
            _check_versions(document)
            return _Reader(document).program(archive)
        except _MALFORMED as error:
            raise _bad(f"holds a malformed graph ({type(error).__name__}: {reason(error)}); export it again") from error


def _check_versions(document: dict[str, Any]) -> None:
    version = _get(_get(document, "schema_version", dict), "major", int)
    if version != _SCHEMA_MAJOR:
        age = "newer" if version > _SCHEMA_MAJOR else "older"
        raise _bad(f"has program schema {version}, {age} than {_SCHEMA_MAJOR}, the one that is read; {EXPORT}")
    if document["verifiers"] != [_DIALECT]:
        raise _bad(f"holds operators of another dialect, {quote(document['verifiers'])}; export it without run_decompositions")


class _Reader:
    def __init__(self, document: dict[str, Any]) -> None:
        module = document["graph_module"]
        self._graph = module["graph"]
        self._signature = module["signature"]
        self._calls = module["module_call_graph"]
        self._ranges = document["range_constraints"]
        self._bounds: dict[str, tuple[int, int | None]] = {}
        self._hints: dict[str, int] = {}
        self._defined: set[str] = set()
        self._weights: dict[str, str] = {}
        self._roots: dict[str, str] = {}  # value → the weight or input that it is, or is a view of
        self._written: set[str] = set()  # inputs that the network writes to

    def program(self, archive: Archive) -> Program:
        inputs: list[Input] = []
        parameters: set[str] = set()
        for spec in self._signature["input_specs"]:
            kind, body = _only(spec)
            if kind == "user_input":
                inputs.append(self._input(body["arg"]))
            elif kind == "constant_input":
                self._constant(body["name"], body["value"])
            elif kind in _TENSOR_KINDS:
                name = _get(body, _TENSOR_KINDS[kind], str)
                self._weights[self._define_root(body["arg"]["name"])] = name
                if kind == "parameter":
                    parameters.add(name)
            else:
                raise _bad(f"takes an input of kind {quote(kind)}; only tensors are handled", unsafe=kind == "custom_obj")
        nodes = [node for raw in self._graph["nodes"] if (node := self._node(raw)) is not None]
        outputs = self._outputs()
        for place, value in enumerate(inputs):
            if value.name in self._written:
                inputs[place], copy = self._copied(value)
                nodes.insert(0, copy)
        return Program(
            inputs=tuple(inputs),
            weights=self._weights,
            parameters=frozenset(parameters),
            tensors=read_tensors(archive, self._weights.values()),
            nodes=tuple(nodes),
            outputs=outputs,
            bounds=self._bounds,
        )

    def _input(self, argument: dict[str, Any]) -> Input:
        kind, body = _only(argument)
        if kind != "as_tensor":
            raise _bad(f"takes an input that is no tensor ({quote(kind)}); export it with tensors and constants as its inputs")
        name = self._define_root(body["name"])
        if name in _RESERVED_INPUTS or name.startswith("__"):
            raise _bad(f"names an input {quote(name)}, which has a meaning of its own in generated code; rename it")
        meta = self._graph["tensor_values"][name]
        shape = tuple(self._size(size, first=place == 0) for place, size in enumerate(meta["sizes"]))
        hints = {size: self._hints[size] for size in shape if isinstance(size, str)}
        elements = math.prod(max(hints[size] if isinstance(size, str) else size, 1) for size in shape)
        if len(shape) > MAX_DIMS or elements > _MAX_INPUT_ELEMENTS:
            raise _bad(f"takes an input {quote(name)} of more than {_MAX_INPUT_ELEMENTS} elements; export it for a smaller one")
        return Input(name, shape, _dtype(meta["dtype"]), hints)

    def _size(self, size: dict[str, Any], first: bool) -> int | str:
        """A dim's size or symbol, with the symbol's bounds and hint taken down."""
        kind, body = _only(size)
        if kind == "as_int":
            fixed: int = _get(size, kind, int)
            if fixed < 0:
                raise ValueError("a negative size")
            return fixed
        found = _SYMBOL.fullmatch(_get(body, "expr_str", str))
        if not found or found[1] not in self._ranges:
            raise _bad("has an input size that is computed from another; export it with a plain dynamic dimension")
        least, greatest = (self._ranges[found[1]][key] for key in ("min_val", "max_val"))
        if not isinstance(least, int | None) or not isinstance(greatest, int | None):
            raise TypeError("a bound that is no whole number")
        least = max(least or 0, 0)
        if greatest is not None and greatest < max(least, 1):
            raise ValueError("a dynamic size without a possible value")
        self._bounds[found[1]] = least, greatest
        hint = _get(body["hint"], "as_int", int) if body["hint"] and not first else _BATCH_HINT
        likely = max(hint, least, _BATCH_HINT)  # programs do not tell 1 from a constant
        self._hints.setdefault(found[1], likely if greatest is None else min(likely, greatest))
        return found[1]

    def _constant(self, name: str, value: dict[str, Any]) -> None:
        kind, body = _only(value)
        if kind not in _CONSTANTS or not isinstance(body, _CONSTANTS[kind]):
            raise _bad(f"takes an input {quote(name)} of kind {quote(kind)}, which is not handled; make it a tensor")

    def _copied(self, value: Input) -> tuple[Input, Node]:
        """The input under another name, and the node that copies it to its own: what callers pass stays as it was."""
        given = self._define(f"{value.name}_given")
        copy = Node(torch.ops.aten.clone.default, (Ref(given),), {}, value.name)
        return replace(value, name=given), copy

    def _node(self, raw: dict[str, Any]) -> Node | None:
        target = _get(raw, "target", str)
        if target in ops.CHECKS:
            return None
        operator = ops.resolve(target)
        if operator is None:
            remedy = ops.REMEDIES.get(target, "write that part with others")
            raise _bad(f"uses the operator {quote(target)}, which is not among those handled; {remedy}")
        if not isinstance(operator, torch._ops.OpOverload):
            numbers = tuple(self._argument(entry["arg"]) for entry in raw["inputs"])
            if any(isinstance(number, str | list | None) for number in numbers):
                raise TypeError(f"{target} of something that is no number")
            if len(numbers) != (1 if operator is ops.ARITHMETIC["neg"] else 2):
                raise ValueError(f"{target} of {len(numbers)} numbers")
            return Node(operator, numbers, {}, self._results(raw["outputs"]), _caller(raw))
        given = {_get(entry, "name", str): self._argument(entry["arg"]) for entry in raw["inputs"]}
        operator, args, kwargs = ops.bind(operator, given)
        root = self._roots.get(args[0].name) if args and isinstance(args[0], Ref) else None
        if root is not None and operator._schema.is_mutable:
            if root not in self._weights:
                self._written.add(root)
            elif self._weights[root].endswith("num_batches_tracked"):
                return None  # BatchNorm's counter, bumped by programs exported in training mode; the module keeps its own
            else:
                raise _bad(f"changes its own tensor {quote(self._weights[root])} while it runs; export it in eval mode")
        outputs = self._results(raw["outputs"])
        if root is not None and any(result.alias_info is not None for result in operator._schema.returns):
            self._roots.update(dict.fromkeys((outputs,) if isinstance(outputs, str) else outputs, root))
        return Node(operator, args, kwargs, outputs, _caller(raw))

    def _results(self, outputs: list[dict[str, Any]]) -> str | tuple[str, ...]:
        names: list[str] = []
        several = len(outputs) != 1
        for output in outputs:
            kind, body = _only(output)
            if kind == "as_tensor":
                names.append(self._define(body["name"]))
            elif kind == "as_tensors":
                several = True
                names.extend(self._define(item["name"]) for item in body)
            elif kind in ("as_sym_int", "as_sym_bool"):
                names.append(self._define(body["as_name"]))
            else:
                raise _bad(f"has an operator that returns {quote(kind)}, which is not handled")
        return tuple(names) if several else names[0]

    def _argument(self, argument: dict[str, Any]) -> Any:
        kind, body = _only(argument)
        if kind in ("as_none", "as_device"):
            return None  # the network runs wherever its weights are
        if kind in ("as_int", "as_float", "as_bool", "as_string"):
            return _scalar(kind, body)
        if kind in ("as_ints", "as_floats", "as_bools"):
            return [_scalar(kind.removesuffix("s"), item) for item in body]
        if kind == "as_tensor":
            return self._use(body["name"])
        if kind == "as_optional_tensor":
            return self._optional(body)
        if kind in ("as_tensors", "as_optional_tensors"):
            return [self._optional(item) for item in body]
        if kind in ("as_sym_int", "as_sym_bool"):
            return self._symbolic(body)
        if kind == "as_sym_ints":
            return [self._symbolic(item) for item in body]
        if kind == "as_scalar_type":
            return _dtype(body)
        if kind == "as_memory_format":
            return _MEMORY_FORMATS[body]
        if kind == "as_layout":
            return torch.strided
        unsafe = kind in ("as_custom_obj", "as_operator")
        raise _bad(f"passes an argument of kind {quote(kind)}, which is not handled; write that part differently", unsafe)

    def _optional(self, item: dict[str, Any]) -> Ref | None:
        item = item.get("as_tensor", item)
        return self._use(item["name"]) if "name" in item else None

    def _symbolic(self, item: dict[str, Any]) -> Any:
        kind, body = _only(item)
        return self._use(body) if kind == "as_name" else _scalar(kind, body)

    def _outputs(self) -> Any:
        for spec in self._signature["output_specs"]:
            if "user_output" not in spec:
                raise _bad(f"changes state as an output ({quote(_only(spec)[0])}); export it in eval mode")
        leaves = iter([self._argument(spec["user_output"]["arg"]) for spec in self._signature["output_specs"]])
        root = next((call for call in self._calls if call["fqn"] == ""), None)
        structure = parse_json(root["signature"]["out_spec"]) if root and root["signature"] else _ONE_VALUE
        outputs = _structure(structure[1], leaves)
        if next(leaves, self) is not self:
            raise ValueError("more outputs than its structure holds")
        return outputs

    def _define_root(self, name: str) -> str:
        self._roots[self._define(name)] = name
        return name

    def _define(self, name: str) -> str:
        # torch.fx writes value names into Python source and runs it: nothing but an identifier may pass.
        if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
            raise _bad(f"names a value {quote(name)}, which is no identifier; export it again", unsafe=True)
        if name in self._defined:
            raise _bad(f"defines the value {quote(name)} twice; export it again")
        self._defined.add(name)
        return name

    def _use(self, name: str) -> Ref:
        if name not in self._defined:
            raise _bad(f"uses the value {quote(name)} before it is defined; export it again")
        return Ref(name)


def _caller(raw: dict[str, Any]) -> str:
    """The path in the last entry of a node's stack of modules, ``key,path,class;key,path,class``; it is for people alone."""
    stack = raw.get("metadata", {}).get("nn_module_stack", "")
    _, _, rest = stack.rpartition(";")[2].partition(",")
    return str(rest.rpartition(",")[0])


def _structure(spec: dict[str, Any], leaves: Iterator[Any]) -> Any:
    kind = spec["type"]
    if kind is None:
        return next(leaves)
    children = [_structure(child, leaves) for child in spec["children_spec"]]
    if kind == "builtins.tuple":
        return tuple(children)
    if kind == "builtins.list":
        return children
    if kind in ("builtins.dict", "collections.OrderedDict"):
        keys = parse_json(spec["context"])
        if any(not isinstance(key, str | int) for key in keys):
            raise TypeError("a dict key that is neither a text nor a number")
        return dict(zip(keys, children, strict=True))
    raise _bad(f"returns a {quote(kind)}; export it with a tensor, tuple, list or dict as its output")


def _scalar(kind: str, value: Any) -> Any:
    if kind == "as_float" and isinstance(value, str):
        return _FLOATS[value]
    if isinstance(value, bool) != (kind == "as_bool") or not isinstance(value, _CONSTANTS[kind]):
        raise TypeError(f"{kind} is {quote(value)}")
    return value


def _dtype(code: Any) -> torch.dtype:
    if code not in DTYPES:
        raise _bad(f"computes in a dtype that is not handled (code {quote(code)}); use real numbers of 8 to 64 bits")
    return DTYPES[code]


def _only(union: dict[str, Any]) -> tuple[str, Any]:
    """The kind and content of a serialized choice, of which exactly one is given."""
    ((kind, body),) = union.items()
    return kind, body


def _get(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{key} is {quote(value)}")
    return value


def _bad(problem: str, unsafe: bool = False) -> InvalidInput:
    return (UnsafeProgram if unsafe else InvalidInput)("model", None, problem)
