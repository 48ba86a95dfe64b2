"""Random damage to a good program: it is read, or refused with an error made for users, and nothing else ever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pruners.errors import InvalidInput
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from tests.exporting import export
from tests.pruners.corpus import CONSTANTS, MODEL, WEIGHTS, Payload, Sample, archive_of

# The same examples every time, so that a failure is one of the change at hand; tests/fuzz goes on from there.
EXAMPLES = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, -1, 2, 7, 2**31, 2**63 - 1, -(2**63)])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["x", "conv.weight", "p_conv_weight", "torch.ops.aten.relu.default", "_operator.add", "weight_0", "Infinity"]
    ),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(max_size=4), children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["as_int", "as_tensor", "as_tensors", "as_sym_int", "name", "as_name"]), children, max_size=2
        )
    ),
    max_leaves=8,
)


class Varied(nn.Module):
    """Small, with every kind of entry that a program can have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.1)
        self.head = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.head.weight
        self.shift = torch.ones(4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        first, second = self.drop(self.norm(self.conv(x))).split([1, 3], 1)
        y = torch.cat([second, first], 1).flatten(2).mean(2)
        return {"a": self.tied(self.head(y)) + self.shift, "b": [y.reshape(x.shape[0] * 2, -1), None]}


def sample_in(folder: Path) -> Sample:
    return Sample.of(export(Varied(), (3, 6, 6), folder / "varied.pt2"), Payload(folder / "canary", 1))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return sample_in(tmp_path_factory.mktemp("varied"))


def attempt(data: bytes, folder: Path) -> None:
    path = folder / "fuzzed.pt2"
    path.write_bytes(data)
    sentence = "model is read."
    try:
        build_module(read_program(path))
    except InvalidInput as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert sentence.endswith(".")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from places(value[key])


def mutate(document: Any, draw: Any) -> None:
    """Replaces, removes, doubles or swaps parts of a document."""
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(document))
        if not found:
            return
        container, key = found[draw(st.integers(0, len(found) - 1))]
        other, other_key = found[draw(st.integers(0, len(found) - 1))]
        change = draw(st.sampled_from(["replace", "remove", "copy", "double", "rename"]))
        if change == "replace":
            container[key] = draw(VALUES)
        elif change == "remove":
            del container[key]
        elif change == "copy":
            container[key] = json.loads(json.dumps(other[other_key]))
        elif change == "double" and isinstance(container, list):
            container.insert(key, json.loads(json.dumps(container[key])))
        elif change == "rename" and isinstance(container, dict):
            container[draw(st.text(max_size=6) | st.sampled_from(["as_int", "as_tensor", "as_none", "name"]))] = container.pop(
                key
            )


@st.composite
def damaged_json(draw: Any, sample: Sample) -> bytes:
    member = draw(st.sampled_from([MODEL, MODEL, MODEL, WEIGHTS, CONSTANTS]))
    document = json.loads(sample.members[member])
    if member == MODEL:  # the parts that are read
        graph = document["graph_module"]["graph"]
        for node in graph["nodes"]:
            node["metadata"] = {}
        graph["tensor_values"] = {"x": graph["tensor_values"]["x"]}
    mutate(document, draw)
    return sample.with_members(**{member: json.dumps(document).encode()})


@st.composite
def damaged_outputs(draw: Any, sample: Sample) -> bytes:
    document = json.loads(sample.members[MODEL])
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    structure = json.loads(signature["out_spec"])
    mutate(structure, draw)
    signature["out_spec"] = json.dumps(structure)
    return sample.with_members(**{MODEL: json.dumps(document).encode()})


@st.composite
def damaged_bytes(draw: Any, sample: Sample) -> bytes:
    good = bytearray(sample.good if draw(st.booleans()) else archive_of(sample.entries()))
    directory = good.find(b"PK\1\2")
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(good) - 1) | st.integers(directory, len(good) - 1))
        patch = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff" * 8]))
        kept = draw(st.sampled_from([0, len(patch)]))
        good[start : start + kept] = patch
    return bytes(good)


DAMAGES = {"json": damaged_json, "outputs": damaged_outputs, "bytes": damaged_bytes}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@EXAMPLES
@given(data=st.data())
def test_damaged_programs(data: st.DataObject, damage: Any, sample: Sample, tmp_path: Path) -> None:
    attempt(data.draw(damage(sample)), tmp_path)
