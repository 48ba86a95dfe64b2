"""Broken and malicious archives: each case builds a file's bytes from a good archive, and names what its refusal must say."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
FIRST_WEIGHT = "conv.weight"
FIRST_WEIGHT_MEMBER = "data/weights/weight_0"


class Payload:
    """What runs when it is unpickled: writes a file and calls home."""

    def __init__(self, canary: Path, port: int) -> None:
        self.code = (
            f"import socket; open({str(canary)!r}, 'w').close(); socket.create_connection(('127.0.0.1', {port})).close()"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (self.code,))


@dataclass(frozen=True)
class Sample:
    """What cases are made from: a good archive, its members by their path below the root folder, and the payload."""

    good: bytes
    members: dict[str, bytes]
    code: str
    pickled: bytes

    @staticmethod
    def of(path: Path, payload: Payload) -> Sample:
        with zipfile.ZipFile(path) as archive:
            members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        return Sample(path.read_bytes(), members, payload.code, pickle.dumps(payload))

    def entries(self, root: str = "root") -> list[Entry]:
        return [Entry(f"{root}/{name}".encode(), data) for name, data in self.members.items()]

    def with_members(self, **changed: bytes) -> bytes:
        return archive_of([Entry(f"root/{name}".encode(), data) for name, data in {**self.members, **changed}.items()])


@dataclass
class Entry:
    """A zip member, with what its headers claim where that is not the truth."""

    name: bytes
    data: bytes
    method: int = zipfile.ZIP_STORED
    flags: int = 0
    attributes: int = 0
    offset: int | None = None
    checksum: int | None = None
    local_size: int | None = None
    central_size: int | None = None
    extra: bytes = field(default=b"")


def archive_of(entries: Sequence[Entry], directory_size: int | None = None, count: int | None = None) -> bytes:
    """A zip file made by hand, so that everything in it can lie."""
    body, directory = bytearray(), bytearray()
    for entry in entries:
        stored = entry.data if entry.method == zipfile.ZIP_STORED else zlib.compress(entry.data, 9)[2:-4]
        crc = zlib.crc32(entry.data) if entry.checksum is None else entry.checksum
        size = len(entry.data) if entry.central_size is None else entry.central_size
        packed = len(stored) if entry.central_size is None else entry.central_size
        offset = len(body) if entry.offset is None else entry.offset
        local = len(entry.data) if entry.local_size is None else entry.local_size
        common = (entry.flags, entry.method, 0, 33, crc)
        if entry.offset is None:
            body += (
                struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common, len(stored), local, len(entry.name), 0) + entry.name + stored
            )
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x314, 20, *common, packed, size, len(entry.name), len(entry.extra), 0, 0, 0,
            entry.attributes, offset,
        )  # fmt: skip
        directory += entry.name + entry.extra
    number = len(entries) if count is None else count
    length = len(directory) if directory_size is None else directory_size
    return bytes(body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, number, number, length, len(body), 0))


def wide(length: int, claimed: int) -> bytes:
    """The 64-bit end records of a zip directory of ``length`` bytes that claims another length, and the plain one."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, claimed, 0)
    return (
        record + struct.pack("<4sLQL", b"PK\6\7", 0, length, 1) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, length, 0, 0)
    )


Build = Callable[[Sample], bytes]


def json_edit(member: str, change: Callable[[Any, Sample], Any]) -> Build:
    """One member edited as JSON."""

    def build(sample: Sample) -> bytes:
        data = json.loads(sample.members[member])
        change(data, sample)
        return sample.with_members(**{member: json.dumps(data).encode()})

    return build


def graph(change: Callable[[Any], Any]) -> Build:
    return json_edit(MODEL, lambda data, _: change(data["graph_module"]["graph"]))


def signature(change: Callable[[Any], Any]) -> Build:
    return json_edit(MODEL, lambda data, _: change(data["graph_module"]["signature"]))


def structure(out_spec: Any) -> Build:
    text = json.dumps([1, out_spec])
    return json_edit(MODEL, lambda data, _: data["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=text))


def input_size(size: Any) -> Build:
    return graph(lambda found: found["tensor_values"]["x"]["sizes"].__setitem__(1, size))


def weight(change: Callable[[Any], Any]) -> Build:
    return json_edit(WEIGHTS, lambda data, _: change(data["config"][FIRST_WEIGHT]))


def meta(**changed: Any) -> Build:
    return weight(lambda entry: entry["tensor_meta"].update(changed))


def ints(*numbers: int) -> list[dict[str, int]]:
    return [{"as_int": number} for number in numbers]


def member(name: str, data: bytes | None = None) -> Build:
    return lambda sample: sample.with_members(**{name: sample.pickled if data is None else data})


def without(name: str) -> Build:
    return lambda sample: archive_of([entry for entry in sample.entries() if entry.name != f"root/{name}".encode()])


def path(name: bytes, **claims: Any) -> Build:
    return lambda sample: archive_of([*sample.entries(), Entry(name, sample.pickled, **claims)])


def lying(name: str, **claims: Any) -> Build:
    def build(sample: Sample) -> bytes:
        entries = sample.entries()
        for entry in entries:
            if entry.name == f"root/{name}".encode():
                for key, value in claims.items():
                    setattr(entry, key, value)
        return archive_of(entries)

    return build


def cut(share: float) -> Build:
    return lambda sample: sample.good[: int(len(sample.good) * share)]


def packed(names: Sequence[str]) -> Build:
    return lambda sample: archive_of([Entry(name.encode(), sample.pickled) for name in names])


def tar(sample: Sample) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in sample.members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def checkpoint(sample: Sample) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    return buffer.getvalue()


def overlapping(sample: Sample) -> bytes:
    return archive_of([*sample.entries(), *[Entry(f"root/data/weights/copy_{n}".encode(), b"", offset=0) for n in range(500)]])


def views(sample: Sample) -> bytes:
    """A thousand tensors, each a different view of nearly all of one storage, every one used."""
    model, weights = json.loads(sample.members[MODEL]), json.loads(sample.members[WEIGHTS])
    specs = model["graph_module"]["signature"]["input_specs"]
    for n in range(1000):
        found = json.loads(json.dumps(weights["config"][FIRST_WEIGHT]))
        found["tensor_meta"].update(sizes=ints(100_000 - n), strides=ints(1))
        found["path_name"] = "weight_big"
        weights["config"][f"view{n}"] = found
        specs.append({"buffer": {"arg": {"name": f"b_view{n}"}, "buffer_name": f"view{n}", "persistent": True}})
    return sample.with_members(
        **{MODEL: json.dumps(model).encode(), WEIGHTS: json.dumps(weights).encode(), "data/weights/weight_big": bytes(400_000)}
    )


def many_tensors(sample: Sample) -> bytes:
    text = '{"config": {' + ", ".join(f'"t{n}": {{}}' for n in range(10**6)) + "}}"
    return sample.with_members(**{WEIGHTS: text.encode()})


def tensors_beyond_the_limit(sample: Sample) -> bytes:
    text = '{"config": {' + ", ".join(f'"t{n}": 0' for n in range(200_000)) + "}}"
    return sample.with_members(**{WEIGHTS: text.encode()})


def raw_json(text: str) -> Build:
    """A number of the graph replaced by text."""
    return lambda sample: sample.with_members(
        **{MODEL: sample.members[MODEL].replace(b'"major": 8', b'"major": ' + text.encode(), 1)}
    )


def calls(target: str, *arguments: dict[str, Any]) -> Build:
    inputs = [{"name": name, "arg": argument, "kind": 1} for name, argument in zip("ab", arguments, strict=False)]
    raw = {"target": target, "inputs": inputs, "outputs": [{"as_tensor": {"name": "fresh"}}], "metadata": {}}
    return graph(lambda found: found["nodes"].append(raw))


def argument(value: Any) -> Build:
    return graph(lambda found: found["nodes"][0]["inputs"][0].update(arg=value))


def named_input(name: str) -> Build:
    """The network's input renamed throughout."""

    def build(sample: Sample) -> bytes:
        text = sample.members[MODEL].replace(b'{"name": "x"}', json.dumps({"name": name}).encode())
        return sample.with_members(**{MODEL: text.replace(b'"x": {"dtype"', json.dumps(name).encode() + b': {"dtype"')})

    return build


def named_weight(name: str) -> Build:
    """The first weight renamed throughout."""

    def build(sample: Sample) -> bytes:
        edited = {
            key: sample.members[key].replace(json.dumps(FIRST_WEIGHT).encode(), json.dumps(name).encode())
            for key in (MODEL, WEIGHTS)
        }
        return sample.with_members(**edited)

    return build


def output_name(place: int, name: str) -> Build:
    return graph(lambda found: found["nodes"][place]["outputs"][0]["as_tensor"].update(name=name))


def constant(entry: dict[str, Any], name: str = "tensor_0") -> Build:
    def build(sample: Sample) -> bytes:
        data = json.loads(sample.members[CONSTANTS])
        data["config"]["evil"] = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None, **entry}
        return sample.with_members(**{CONSTANTS: json.dumps(data).encode(), f"data/constants/{name}": sample.pickled})

    return build


HARMLESS = ""

CASES: dict[str, tuple[Build, str]] = {
    # Code that torch.export.load would run
    "sample inputs": (member("data/sample_inputs/model.pt"), HARMLESS),
    "pickled weight": (
        lambda sample: weight(lambda entry: entry.update(use_pickle=True))(
            Sample(sample.good, {**sample.members, FIRST_WEIGHT_MEMBER: sample.pickled}, sample.code, sample.pickled)
        ),
        "as a pickle",
    ),
    "pickled constant": (constant({}), "as a pickle"),
    "opaque object": (constant({}, "opaque_obj_0"), "opaque_obj_0"),
    "custom object": (constant({}, "custom_obj_0"), "custom_obj_0"),
    "custom object by another name": (constant({"path_name": "custom_obj_0"}), "as a pickle"),
    "weights of torch 2.8": (member("data/weights/model.pt"), "torch 2.8 or older"),
    "constants of torch 2.8": (member("data/constants/model.pt"), "torch 2.8 or older"),
    "layout of torch 2.7": (
        packed(["version", "serialized_exported_program.json", "serialized_state_dict.pt", "serialized_constants.pt"]),
        "torch 2.8 or older",
    ),
    "layout of torch 2.7 in a folder": (packed(["a/version", "a/serialized_exported_program.json"]), "torch 2.8 or older"),
    "layout of torch 2.1": (packed(["version", "serialized_state_dict.json"]), "torch 2.8 or older"),
    "expression": (
        json_edit(
            MODEL,
            lambda data, sample: data["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0].update(
                as_expr={"expr_str": f"exec({sample.code!r})", "hint": None}
            ),
        ),
        "computed from another",
    ),
    "expression after a symbol": (
        json_edit(
            MODEL,
            lambda data, sample: data["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0].update(
                as_expr={"expr_str": f"Symbol('s77') + exec({sample.code!r})", "hint": None}
            ),
        ),
        "computed from another",
    ),
    "expression inside the graph": (
        json_edit(
            MODEL,
            lambda data, sample: data["graph_module"]["graph"]["sym_int_values"].update(
                s={"as_expr": {"expr_str": f"exec({sample.code!r})", "hint": None}}
            ),
        ),
        HARMLESS,
    ),
    "guards": (json_edit(MODEL, lambda data, sample: data.update(guards_code=[f"exec({sample.code!r})"])), HARMLESS),
    "shared library": (member("data/aotinductor/model/model.so", b"\x7fELF"), "aotinductor"),
    "shared library as a weight": (member("data/weights/libevil.so", b"\x7fELF"), "libevil.so"),
    "pickle beside": (member("data/weights/evil.pkl"), "evil.pkl"),
    "Python beside": (member("setup.py", b"raise SystemExit"), "setup.py"),
    "extra files": (member("extra/evil.pkl"), HARMLESS),
    # Not a program archive
    "empty file": (lambda sample: b"", "is not a .pt2"),
    "text": (lambda sample: b"hello " * 100, "is not a .pt2"),
    "gzip": (lambda sample: gzip.compress(sample.good), "is not a .pt2"),
    "tar": (tar, "is not a .pt2"),
    "pickle": (lambda sample: sample.pickled, "is not a .pt2"),
    "torch.save checkpoint": (checkpoint, "data.pkl"),
    "TorchScript": (packed(["net/code/__torch__.py", "net/data.pkl", "net/constants.pkl"]), "code/__torch__.py"),
    "safetensors": (lambda sample: struct.pack("<Q", 2) + b"{}", "is not a .pt2"),
    "empty zip": (lambda sample: archive_of([]), "is not a .pt2"),
    "zip of something else": (packed(["a/b.txt"]), "b.txt"),
    "pickle before the zip": (lambda sample: sample.pickled + sample.good, "is not a .pt2"),
    "zip before the zip": (lambda sample: archive_of([Entry(b"a", b"b")]) + sample.good, "from its first byte on"),
    "something after the zip": (lambda sample: sample.good + sample.pickled, "is not a .pt2"),
    "a comment after the zip": (lambda sample: sample.good[:-2] + b"\3\0abc", "is not a .pt2"),
    **{f"cut at {share}": (cut(share), "cut off") for share in (0.01, 0.3, 0.5, 0.9, 0.99, 0.9999)},
    # Bombs and lies of the zip container
    "deflated bomb": (
        lambda sample: archive_of([*sample.entries(), Entry(b"root/data/weights/b", bytes(10**8), zipfile.ZIP_DEFLATED)]),
        "compressed",
    ),
    "deflated and called stored": (lying(MODEL, method=zipfile.ZIP_DEFLATED), "compressed"),
    "unknown compression": (lying(MODEL, method=99), "compressed"),
    "overlapping members": (overlapping, "overlapping"),
    "size beyond the file": (lying(FIRST_WEIGHT_MEMBER, central_size=2**31), "overlapping"),
    "size of the directory smaller": (lying(MODEL, central_size=10), "damaged"),
    "other size in the local header": (lying(FIRST_WEIGHT_MEMBER, local_size=2**31), HARMLESS),
    "offset into nothing": (path(b"root/data/weights/b", offset=2**31), "overlapping"),
    "64-bit offset": (
        path(b"root/data/weights/b", offset=2**32 - 1, extra=struct.pack("<2HQ", 1, 8, 2**63)),
        "overlapping",
    ),
    "64-bit size": (
        path(b"root/data/weights/b", central_size=2**32 - 1, extra=struct.pack("<2H2Q", 1, 16, 2**63, 2**63)),
        "overlapping",
    ),
    "extra field cut off": (path(b"root/data/weights/b", extra=struct.pack("<2H", 1, 500)), "is not a .pt2"),
    "huge directory": (lambda sample: archive_of(sample.entries(), directory_size=2**32 - 1), "zip directory larger"),
    "huge 64-bit directory": (lambda sample: b"PK\3\4" + bytes(100) + wide(100, 2**63), "zip directory larger"),
    "wrong count": (lambda sample: archive_of(sample.entries(), count=3), HARMLESS),
    "encrypted": (lying(MODEL, flags=1), "encrypted"),
    "wrong checksum": (lying(FIRST_WEIGHT_MEMBER, checksum=1), "damaged"),
    "duplicate": (path(f"root/{MODEL}".encode()), "twice"),
    "two roots": (path(b"other/archive_version"), "twice"),
    "several roots": (lambda sample: archive_of([*sample.entries(), Entry(b"b/extra/x", b"")]), "2 root folders"),
    "symlink": (lying(FIRST_WEIGHT_MEMBER, attributes=(stat.S_IFLNK | 0o777) << 16, data=b"/etc/passwd"), "claims more data"),
    # Names of members
    "parent folder": (path(b"root/../../evil"), "no plain program needs"),
    "absolute": (path(b"/etc/cron.d/evil"), "no plain program needs"),
    "backslashes": (path(b"root\\models\\model.json"), "no plain program needs"),
    "NUL": (path(b"root/data/weights/weight_0\0.pkl"), "weight_0"),
    "unicode look-alike": (path("root/models/mоdel.json".encode(), flags=0x800), "no plain program needs"),
    "line break": (path(b"root/a\nb"), r"a\nb"),
    "bytes that are no text": (path(b"root/\xff\xfe", flags=0x800), "is not a .pt2"),
    "very long": (path(b"root/" + b"a" * 60_000), "no plain program needs"),
    # Missing members
    **{f"without {name}": (without(name), "lacks") for name in (WEIGHTS, CONSTANTS, FIRST_WEIGHT_MEMBER, "byteorder")},
    "without the graph": (without(MODEL), "without an exported program"),
    "without the format": (without("archive_format"), "lacks"),
    "big-endian": (member("byteorder", b"big"), "big-endian"),
    "another format": (member("archive_format", b"pt3"), "pt2 archive format"),
    # JSON
    "no JSON": (member(MODEL, b"{"), "not valid JSON"),
    "JSON list": (member(MODEL, b"[]"), "not a JSON object"),
    "JSON of nothing": (member(MODEL, b"{}"), "malformed"),
    "no text": (member(MODEL, b"\xff\x00\xff"), "not valid JSON"),
    "pickle as JSON": (member(MODEL), "not valid JSON"),
    "deep nesting": (member(MODEL, b'{"a":' * 100_000), "not valid JSON"),
    "nesting": (member(MODEL, b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}"), "nests deeper"),
    "a million tensors": (many_tensors, "values"),
    "too many tensors": (tensors_beyond_the_limit, "more than 100000 tensors"),
    "too many values": (member(MODEL, b'{"a": [' + b"{}," * 10**6 + b"0]}"), "values"),
    "number of 5,000 digits": (raw_json("1" * 5000), "not valid JSON"),
    "number of 100 digits": (raw_json("1" * 100), "64 bits"),
    "NaN": (raw_json("NaN"), "NaN"),
    "Infinity": (raw_json("-Infinity"), "-Infinity"),
    "fraction": (raw_json("8.5"), "malformed"),
    "newer schema": (raw_json("9"), "newer than 8"),
    "older schema": (raw_json("7"), "older than 8"),
    "no schema": (json_edit(MODEL, lambda data, _: data.pop("schema_version")), "malformed"),
    "lone surrogate": (output_name(0, "\ud800"), "no identifier"),
    # The graph
    "forward reference": (argument({"as_tensor": {"name": "linear"}}), "before it is defined"),
    "cycle": (argument({"as_tensor": {"name": "conv2d"}}), "before it is defined"),
    "undefined": (argument({"as_tensor": {"name": "ghost"}}), "'ghost'"),
    "two values of one name": (output_name(1, "conv2d"), "twice"),
    "code as a name": (output_name(0, "x): import os #"), "no identifier"),
    "keyword as a name": (output_name(0, "lambda"), "no identifier"),
    "list as a name": (output_name(0, ["x"]), "no identifier"),
    "input called self": (named_input("self"), "'self'"),
    "input called torch": (named_input("torch"), "'torch'"),
    "dunder input": (named_input("__debug__"), "'__debug__'"),
    "weight called __class__": (named_weight("__class__.weight"), "__class__"),
    "weight called forward": (named_weight("forward.weight"), "forward"),
    "weight with a path": (named_weight("../weight"), "../weight"),
    "weight in a keyword": (named_weight("class.weight"), "keyword 'class'"),
    "weight above another": (named_weight("norm"), "both a tensor and a module"),
    "reads a file": (calls("torch.ops.aten.from_file.default"), "from_file"),
    "operator's class": (calls("torch.ops.aten.relu.__class__"), "__class__"),
    "operator's globals": (calls("torch.ops.aten.relu.default.__globals__"), "__globals__"),
    "operators of another library": (calls("torch.ops.prims.device_put.default"), "device_put"),
    "Python's eval": (calls("builtins.eval"), "builtins.eval"),
    "a method by name": (calls("_operator.methodcaller"), "methodcaller"),
    "operator that is no text": (graph(lambda found: found["nodes"][0].update(target=3)), "malformed"),
    "text formatting": (calls("_operator.mod", {"as_string": "%9999999999d"}, {"as_int": 1}), "no number"),
    "sum of nothing": (calls("_operator.add"), "0 numbers"),
    "missing argument": (calls("torch.ops.aten.relu.default"), "without 'self'"),
    "arguments of other names": (
        calls("torch.ops.aten.relu.default", {"as_tensor": {"name": "x"}}, {"as_int": 1}),
        "without 'self'",
    ),
    "two kinds at once": (argument({"as_int": 1, "as_none": True}), "malformed"),
    "no kind": (argument({}), "malformed"),
    "custom object argument": (argument({"as_custom_obj": {"name": "x"}}), "as_custom_obj"),
    "operator argument": (argument({"as_operator": "os.system"}), "as_operator"),
    "graph argument": (argument({"as_graph": {}}), "as_graph"),
    "flag as a number": (argument({"as_int": True}), "malformed"),
    "text as a number": (argument({"as_ints": ["1"]}), "malformed"),
    "complex dtype": (argument({"as_scalar_type": 10}), "dtype"),
    "number for a tensor": (argument({"as_int": 1}), HARMLESS),
    "zero groups": (
        graph(lambda found: found["nodes"][0]["inputs"].append({"name": "groups", "arg": {"as_int": 0}, "kind": 1})),
        "do not fit",
    ),
    "custom object input": (signature(lambda found: found["input_specs"].append({"custom_obj": {}})), "custom_obj"),
    "token input": (signature(lambda found: found["input_specs"].append({"token": {}})), "token"),
    "number input": (
        signature(lambda found: found["input_specs"].append({"user_input": {"arg": {"as_int": 3}}})),
        "no tensor",
    ),
    "constant list input": (
        signature(lambda found: found["input_specs"].append({"constant_input": {"name": "c", "value": {"as_ints": []}}})),
        "'c'",
    ),
    "mutated buffer": (signature(lambda found: found["output_specs"].append({"buffer_mutation": {}})), "eval mode"),
    "another dialect": (json_edit(MODEL, lambda data, _: data.update(verifiers=["EDGE"])), "run_decompositions"),
    "named tuple": (
        structure({"type": "collections.namedtuple", "context": '"P"', "children_spec": [{"type": None}]}),
        "namedtuple",
    ),
    "structure of too many": (structure({"type": "builtins.tuple", "children_spec": [{"type": None}] * 9}), "malformed"),
    "structure of too few": (structure({"type": "builtins.tuple", "children_spec": []}), "more outputs"),
    "structure with strange keys": (
        structure({"type": "builtins.dict", "context": "[[]]", "children_spec": [{"type": None}]}),
        "dict key",
    ),
    "huge input": (input_size({"as_int": 2**40}), "elements"),
    "negative input": (input_size({"as_int": -1}), "negative size"),
    "huge hint": (
        json_edit(
            MODEL,
            lambda data, _: (
                data["range_constraints"].update(h={"min_val": 1, "max_val": None}),
                data["graph_module"]["graph"]["tensor_values"]["x"]["sizes"].__setitem__(
                    1, {"as_expr": {"expr_str": "Symbol('h')", "hint": {"as_int": 2**50}}}
                ),
            ),
        ),
        "elements",
    ),
    "unknown symbol": (input_size({"as_expr": {"expr_str": "Symbol('z')", "hint": None}}), "computed from another"),
    "impossible bounds": (
        json_edit(MODEL, lambda data, _: [one.update(min_val=9, max_val=3) for one in data["range_constraints"].values()]),
        "without a possible value",
    ),
    # Tensors
    "shape larger than the data": (meta(sizes=ints(4, 3, 3, 4)), "claims more data"),
    "huge shape": (meta(sizes=ints(2**40, 2**40, 3, 3)), "claims more data"),
    "huge empty shape": (meta(sizes=ints(0, 2**40, 2**40, 3)), "impossible sizes"),
    "negative stride": (meta(strides=ints(-1, 9, 3, 1)), "impossible"),
    "fewer strides than sizes": (meta(strides=ints(1)), "impossible"),
    "too many dims": (meta(sizes=ints(*[1] * 99), strides=ints(*[1] * 99)), "impossible"),
    "symbolic size": (meta(sizes=[{"as_expr": {"expr_str": "s0", "hint": None}}]), "malformed"),
    "offset beyond the data": (meta(storage_offset={"as_int": 10**12}), "claims more data"),
    "expanded": (meta(sizes=ints(200), strides=ints(0)), "expanded"),
    "wider dtype than the data": (meta(dtype=8), "claims more data"),
    "unknown dtype": (meta(dtype=99), "dtype"),
    "weights of truth values": (meta(dtype=12), HARMLESS),
    "sparse": (meta(layout=1), "layout"),
    "no description": (weight(lambda entry: entry.update(tensor_meta=None)), "malformed"),
    "path out of the folder": (weight(lambda entry: entry.update(path_name="weight_/../../models/model.json")), "lacks"),
    "not a number": (member(FIRST_WEIGHT_MEMBER, b"\xff" * 432), "not finite"),
    "infinite": (member(FIRST_WEIGHT_MEMBER, struct.pack("<108f", *[float("inf")] * 108)), "not finite"),
    "data cut off": (member(FIRST_WEIGHT_MEMBER, bytes(8)), "claims more data"),
    "no data": (json_edit(WEIGHTS, lambda data, _: data["config"].pop(FIRST_WEIGHT)), "no data for its tensor"),
    "weight and constant": (
        json_edit(
            CONSTANTS, lambda data, sample: data.update(json.loads(sample.members[WEIGHTS].replace(b"weight_", b"tensor_")))
        ),
        "as a weight and as a constant",
    ),
    "a thousand views of one storage": (views, "bytes of tensors per byte"),
}
"""Case → how to build it, and what the refusal says; ``HARMLESS`` ones may be read as well, and run nothing."""
