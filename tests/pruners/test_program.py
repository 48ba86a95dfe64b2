"""The reader: equal to the network that was exported, and deaf to everything that could run code."""

from __future__ import annotations

import contextlib
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_structure

from pruners.errors import InvalidInput, UnsafeProgram
from pruners.graph.modules import build_module
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


def quietly_export(model: nn.Module, arguments: tuple[Any, ...], path: Path, decompose: bool = False, **options: Any) -> Path:
    """Writes a program in any mode, without what torch remarks on unusual ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, arguments, strict=False, **options)
        torch.export.save(program.run_decompositions() if decompose else program, path)
    return path


class Awkward(nn.Module):
    """Views, ties, empty tensors, lifted constants, every dtype, and all kinds of inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("flag", torch.tensor([True, False, True, True]))
        self.register_buffer("infinite", torch.full((2, 2), float("-inf")).triu(1))
        base = torch.arange(12.0).view(3, 4)
        self.register_buffer("rows", base[1:])
        self.register_buffer("columns", base.t())
        self.register_buffer("strided", base[:, ::2])
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8):
            self.register_buffer(f"as_{dtype}".replace("torch.", ""), torch.arange(4, dtype=dtype))

    def forward(self, x: Tensor, mask: None = None, times: int = 2, *, other: Tensor, loud: bool = False) -> dict[str, Any]:
        y = self.conv(x) * self.scale * times + other.mean((1, 2, 3)).view(-1, 1, 1, 1)
        if loud:
            y = y * torch.tensor(3.0)
        y = y.masked_fill(~self.flag.view(1, 4, 1, 1) if mask is None else mask, -float("inf"))
        dtypes = [self.as_float16, self.as_bfloat16, self.as_float64, self.as_int64, self.as_int32, self.as_uint8]
        total = sum((value.to(torch.float32) for value in dtypes), torch.zeros(4))
        views = self.rows.sum() + self.columns[0].sum() + self.strided[0, 1] + self.empty.sum()
        return {"list": [y, total.to(x.device)], "pair": (views, None), "mask": self.infinite + 0}


def test_reads_awkward_networks(tmp_path: Path) -> None:
    model, batch = randomise(Awkward()), torch.export.Dim("batch")
    path = quietly_export(
        model.eval(),
        (torch.zeros(2, 3, 8, 6), None, 3),
        tmp_path / "awkward.pt2",
        kwargs={"other": torch.zeros(2, 1, 2, 2), "loud": True},
        dynamic_shapes={"x": {0: batch}, "mask": None, "times": None, "other": {0: batch}, "loud": None},
    )
    module = build_module(read_program(path))
    assert [value.name for value in module.meta["inputs"]] == ["x", "other"]
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(3, 3, 8, 6, generator=generator), torch.randn(3, 1, 2, 2, generator=generator)
    found, wanted = module(x, other=other), model(x, None, 3, other=other, loud=True)
    for one, two in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
        assert (one is two is None) or torch.equal(one, two)
    assert tree_structure(found) == tree_structure(wanted)


def test_dynamic_image_sizes_keep_their_bounds(tmp_path: Path) -> None:
    class Resize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.out = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            small = nn.functional.pad(self.down(x), (0, x.shape[3] % 2, 0, 0))
            return self.out(nn.functional.interpolate(small, size=x.shape[2:], mode="bilinear"))

    model, dim = Resize(), torch.export.Dim
    shapes = ({0: dim("batch"), 2: dim("height", min=8, max=64), 3: dim("width", min=8)},)
    path = tmp_path / "sizes.pt2"
    read = read_program(quietly_export(model.eval(), (torch.zeros(2, 3, 12, 16),), path, dynamic_shapes=shapes))
    (value,) = read.inputs
    assert [read.bounds[size] if isinstance(size, str) else size for size in value.shape] == [(0, None), 3, (8, 64), (8, None)]
    assert value.example().shape == (2, 3, 12, 16)
    assert value.example(5).shape == (5, 3, 12, 16)
    x = torch.randn(1, 3, 20, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(build_module(read)(x), model(x))


def test_programs_exported_in_training_mode_read_as_eval(tmp_path: Path) -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4)
            self.drop, self.instance = nn.Dropout(0.5), nn.InstanceNorm1d(4, track_running_stats=True)
            self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
            self.lstm = nn.LSTM(4, 4, 2, dropout=0.5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.instance(self.drop(self.norm(self.conv(x)))).transpose(1, 2)
            return self.lstm(self.attention(y, y, y, need_weights=False)[0])[0]

    model = randomise(Trained()).train()
    module = build_module(read_program(quietly_export(model, (torch.zeros(2, 3, 5),), tmp_path / "training.pt2")))
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x), model.eval()(x))
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_programs_after_decomposition_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = quietly_export(Tiny().eval(), (torch.zeros(2, 3, 8, 8),), tmp_path / "core.pt2", decompose=True)
    with pytest.raises(InvalidInput, match="export it without run_decompositions"):
        read_program(path)


def test_what_callers_pass_is_not_changed(tmp_path: Path) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x.sub_(1).div_(2)
            first, second = x.chunk(2, 1)
            first.relu_()
            return self.head(x) + second.sum()

    module, x = load(InPlace(), (4,), tmp_path / "inplace.pt2"), torch.arange(8.0).view(2, 4)
    assert torch.equal(module(x), module(x))
    assert torch.equal(x, torch.arange(8.0).view(2, 4))


def test_state_changed_through_a_view_is_refused(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            self.count[0].add_(1)
            return x + self.count.sum()

    with pytest.raises(InvalidInput, match="changes its own tensor 'count'"):
        load(Counter(), (3,), tmp_path / "counter.pt2")


def test_weights_shared_by_layers_of_different_settings(tmp_path: Path) -> None:
    class Trident(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.dropout_1 = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(8, 8)
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            wide = nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=2, dilation=2)
            return self.dropout_1(self.drop(self.conv(self.conv(x)) + wide))

    model = Trident()
    module, x = load(model, (3, 8, 8), tmp_path / "t.pt2"), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(x), model(x))


def test_layers_inside_layers(tmp_path: Path) -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.inner, self.factor = nn.Linear(4, 4), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.inner(x) * self.factor)

    model = nn.Sequential(Adapted())
    module, x = load(model, (4,), tmp_path / "a.pt2"), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(x), model(x))
    assert module.state_dict().keys() == model.state_dict().keys()


class Returns(nn.Module):
    """Computes a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Named(nn.Module):
    """Holds a layer under a name, or a buffer."""

    def __init__(self, name: str, value: nn.Module | Tensor) -> None:
        super().__init__()
        self.name = name
        if isinstance(value, nn.Module):
            self.add_module(name, value)
        else:
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        value = getattr(self, self.name)
        return value(x) if isinstance(value, nn.Module) else x + value


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


REFUSED = {
    "no_grad": (Returns(without_gradients), r"take torch\.no_grad\(\) and the like out of forward"),
    "unknown operator": (Returns(torch.erfinv), "erfinv"),
    "keyword": (Named("lambda", nn.Linear(4, 4)), "keyword 'lambda'"),
    "expanded": (Named("wide", torch.zeros(1, 4).expand(2, 4)), r"\.contiguous\(\)"),
    "complex": (Named("phase", torch.zeros(4, dtype=torch.complex64)), "'phase' in a layout or dtype"),
    "not a number": (Named("hole", torch.full((4,), torch.nan)), "'hole' that are not finite"),
}


@pytest.mark.parametrize(("model", "named"), REFUSED.values(), ids=REFUSED)
def test_unusual_networks_are_refused_with_a_remedy(model: nn.Module, named: str, tmp_path: Path) -> None:
    path = quietly_export(model, (torch.zeros(2, 4),), tmp_path / "unusual.pt2")
    with pytest.raises(InvalidInput, match=named):
        read_program(path)


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
    "schema": (edit_json(MODEL, lambda data: data["schema_version"].update(major=9)), "torch 2.9 to 2.13"),
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
