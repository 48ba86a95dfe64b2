"""The reader: equal to the network that was exported, and deaf to everything that could run code."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pruners.errors import InvalidInput, UnsafeProgram
from pruners.graph.program import read_program
from tests.exporting import edit_json, export, load, rewrite
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, SplitJoin, randomise

WEIGHTS = "data/weights/model_weights_config.json"
MODEL = "models/model.json"


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return export(randomise(Tiny()), (3, 8, 8), tmp_path / "tiny.pt2")


@pytest.mark.parametrize(
    ("model", "shape"),
    [(CifarResNet(), (3, 32, 32)), (VGG16BN(8), (3, 32, 32)), (MobileNetV2(), (3, 32, 32)), (SplitJoin(), (3, 8, 8))],
    ids=["resnet", "vgg", "mobilenet", "splitjoin"],
)
def test_reads_what_was_exported(model: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = randomise(model)
    module = load(model, shape, tmp_path / "model.pt2")
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(module(x), model(x))
    assert {name: tensor.shape for name, tensor in module.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_structured_outputs_and_buffers(tmp_path: Path) -> None:
    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("mean", torch.ones(1, 3, 1, 1), persistent=False)
            self.constant = torch.tensor([1.0, 2.0, 3.0])

        def forward(self, x: Tensor) -> dict[str, Any]:
            y = self.conv((x - self.mean) * self.constant.view(1, 3, 1, 1))
            return {"map": y, "pooled": (y.mean((2, 3)), [y.flatten(1)])}

    model = Structured()
    found, wanted = load(model, (3, 6, 6), tmp_path / "s.pt2")(torch.ones(3, 3, 6, 6)), model(torch.ones(3, 3, 6, 6))
    assert torch.equal(found["map"], wanted["map"])
    assert torch.equal(found["pooled"][0], wanted["pooled"][0])
    assert torch.equal(found["pooled"][1][0], wanted["pooled"][1][0])


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x)))

    module = load(Tied(), (6,), tmp_path / "tied.pt2")
    assert module.get_parameter("first.weight") is module.get_parameter("second.weight")


def test_trains_again(tiny: Path, tmp_path: Path) -> None:
    module = load(Tiny(), (3, 8, 8), tmp_path / "again.pt2").train()
    before = module.norm.running_mean.clone()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(module(x), module(x)), "dropout is active in training"
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert not torch.equal(module.norm.running_mean, before)


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_sample_inputs_are_never_unpickled(tiny: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps(Canary(canary))
    pickle.loads(payload).close()  # noqa: S301 - proves that the canary sings
    assert canary.exists()
    canary.unlink()
    changed = rewrite(tiny, lambda members: members.update({"data/sample_inputs/model.pt": payload}))
    read_program(changed)
    assert not canary.exists()


def replace_first_weight(key: str, value: Any) -> Any:
    return edit_json(WEIGHTS, lambda data: data["config"]["conv.weight"].update({key: value}))


def first_meta(key: str, value: Any) -> Any:
    return edit_json(WEIGHTS, lambda data: data["config"]["conv.weight"]["tensor_meta"].update({key: value}))


def node(change: Any) -> Any:
    return edit_json(MODEL, lambda data: change(data["graph_module"]["graph"]))


UNSAFE = {
    "pickled weight": (replace_first_weight("use_pickle", True), "pickle"),
    "weight path": (replace_first_weight("path_name", "../../models/model.json"), "pickle"),
    "shared library": (lambda members: members.update({"data/aotinductor/model.so": b"\x7fELF"}), "aotinductor"),
    "custom object": (lambda members: members.update({"data/constants/opaque_obj_0": b"x"}), "opaque_obj_0"),
    "pickle member": (lambda members: members.update({"data/weights/evil.pkl": b"x"}), "evil.pkl"),
    "code in a value's name": (
        node(lambda graph: graph["nodes"][0]["outputs"][0]["as_tensor"].update(name="x): import os #")),
        "identifier",
    ),
    "dunder tensor name": (
        edit_json(
            MODEL,
            lambda data: data["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
                parameter_name="__class__.weight"
            ),
        ),
        "__class__",
    ),
    "custom object argument": (
        node(lambda graph: graph["nodes"][0]["inputs"].append({"name": "z", "arg": {"as_custom_obj": {}}, "kind": 1})),
        "as_custom_obj",
    ),
}

BROKEN = {
    "unknown operator": (node(lambda graph: graph["nodes"][0].update(target="torch.ops.aten.from_file.default")), "from_file"),
    "attribute of torch": (node(lambda graph: graph["nodes"][0].update(target="torch.ops.aten.__class__.mro")), "__class__"),
    "python builtin": (node(lambda graph: graph["nodes"][0].update(target="builtins.eval")), "builtins.eval"),
    "operator module": (node(lambda graph: graph["nodes"][0].update(target="_operator.methodcaller")), "methodcaller"),
    "schema": (edit_json(MODEL, lambda data: data["schema_version"].update(major=9)), "torch 2.8 to 2.13"),
    "missing weight": (edit_json(WEIGHTS, lambda data: data["config"].pop("conv.weight")), "conv.weight"),
    "weights cut off": (lambda members: members.update({"data/weights/weight_0": b"\0" * 8}), "claims more data"),
    "offset beyond storage": (first_meta("storage_offset", {"as_int": 10**12}), "claims more data"),
    "negative stride": (first_meta("strides", [{"as_int": -1}] * 4), "impossible"),
    "huge size": (first_meta("sizes", [{"as_int": 2**40}] * 4), "claims more data"),
    "dtype": (first_meta("dtype", 99), "dtype"),
    "not a number": (lambda members: members.update({"data/weights/weight_0": b"\xff" * 432}), "not finite"),
    "undefined value": (node(lambda graph: graph["nodes"][0]["inputs"][0]["arg"]["as_tensor"].update(name="ghost")), "ghost"),
    "no graph": (lambda members: members.pop(MODEL), "without an exported program"),
    "not JSON": (lambda members: members.update({MODEL: b"{"}), "not valid JSON"),
    "deep JSON": (lambda members: members.update({MODEL: b"[" * 200_000}), "not valid JSON"),
    "JSON list": (lambda members: members.update({MODEL: b"[]"}), "not a JSON object"),
    "empty graph": (lambda members: members.update({MODEL: b'{"schema_version": {"major": 8}}'}), "malformed"),
    "big endian": (lambda members: members.update({"byteorder": b"big"}), "big-endian"),
    "stray member": (lambda members: members.update({"readme.txt": b"hello"}), "readme.txt"),
}


@pytest.mark.parametrize(("change", "named"), UNSAFE.values(), ids=UNSAFE)
def test_parts_that_could_run_code_are_refused(tiny: Path, change: Any, named: str) -> None:
    with pytest.raises(UnsafeProgram, match=named) as caught:
        read_program(rewrite(tiny, change))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "named"), BROKEN.values(), ids=BROKEN)
def test_broken_programs_are_refused_in_a_sentence(tiny: Path, change: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as caught:
        read_program(rewrite(tiny, change))
    assert "\n" not in str(caught.value)


def test_compressed_members_are_refused(tiny: Path) -> None:
    with pytest.raises(InvalidInput, match="compressed"):
        read_program(rewrite(tiny, lambda members: None, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tiny: Path, share: float) -> None:
    data = tiny.read_bytes()
    tiny.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidInput, match=r"not a \.pt2"):
        read_program(tiny)


def test_flipped_bits_in_weights_are_noticed(tiny: Path) -> None:
    data = bytearray(tiny.read_bytes())
    with zipfile.ZipFile(tiny) as archive:
        member = next(info for info in archive.infolist() if info.filename.endswith("weight_0"))
    data[member.header_offset + 200] ^= 1  # beyond the local header, inside the 432 bytes of the first convolution
    tiny.write_bytes(data)
    with pytest.raises(InvalidInput, match="damaged"):
        read_program(tiny)


def test_a_torch_save_checkpoint_is_not_a_program(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(InvalidInput, match="no plain program needs"):
        read_program(tmp_path / "checkpoint.pt")


def test_symbolic_expressions_are_compared_not_evaluated(tiny: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"Symbol('s77') + open({str(canary)!r}, 'w')"

    def change(data: Any) -> None:
        values = data["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}
        data["guards_code"] = [f"open({str(canary)!r}, 'w')"]

    with contextlib.suppress(InvalidInput):
        read_program(rewrite(tiny, edit_json(MODEL, change)))
    assert not canary.exists()
