"""A worker holds no more after a thousand trials than after a few, and finds out nothing that another process has found out."""

from __future__ import annotations

import linecache
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from service.client.export import export_model
from tests.networks import CifarResNet, randomise
from workers.data import Split, Splits
from workers.evaluator import Evaluator
from workers.memory import Tidying, forget_sources
from workers.spec import JobSpec


def test_sources_of_graphs_are_dropped_and_the_graphs_still_run() -> None:
    traced = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    x = torch.ones(1, 2)
    expected, name = traced(x), traced.forward.__code__.co_filename
    assert any("forward" in line for line in linecache.getlines(name)), "or torch keeps them elsewhere, and this is to follow"
    linecache.getlines(name)
    forget_sources()
    assert linecache.getlines(name) == []
    assert torch.equal(traced(x), expected)
    Tidying()()  # on any system


def test_what_another_process_found_out_is_taken_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_model(randomise(CifarResNet(8, width=4)), torch.zeros(2, 3, 8, 8), tmp_path / "model.pt2")
    draw = np.random.default_rng(0)
    split = Split(draw.normal(size=(80, 3, 8, 8)).astype(np.float32), draw.integers(0, 5, 80))
    splits = Splits(split, split, split)
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "pruner": {"name": "taylorfo"}})
    first = Evaluator(tmp_path / "model.pt2", splits, spec)

    def refuse(*_: object) -> None:
        raise AssertionError("found out twice")

    monkeypatch.setattr("workers.evaluator.calibrate", refuse)
    monkeypatch.setattr("workers.evaluator.input_moments", refuse)
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(first.found, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) > 8, "arrays, which processes of a node share"
    found = pickle.loads(sent, buffers=[memoryview(buffer).toreadonly() for buffer in buffers])  # noqa: S301 - our own
    second = Evaluator(tmp_path / "model.pt2", splits, spec, found)
    plan = [group.width // 2 for group in first.coupling.prunable]
    assert second.evaluate(plan) == first.evaluate(plan)
