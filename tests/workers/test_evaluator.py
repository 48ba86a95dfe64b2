"""Evaluating in the memory layout that is quick changes no result, and no network that cannot take it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.client.export import export_model
from workers.data import Split, Splits
from workers.evaluator import Evaluator
from workers.passes import Passes
from workers.spec import JobSpec


class Network(nn.Module):
    """Its last layer reads every position, through ``view`` or ``flatten``."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8 * 16, 5)
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.linear(x.view(x.shape[0], -1) if self.view else x.mean((2, 3)).repeat(1, 16))


@pytest.mark.parametrize(("view", "layout"), [(True, torch.contiguous_format), (False, torch.channels_last)])
def test_a_network_is_evaluated_in_the_layout_that_it_takes(
    view: bool, layout: torch.memory_format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    export_model(Network(view), torch.zeros(2, 3, 4, 4), tmp_path / "model.pt2")
    draw = np.random.default_rng(0)
    split = Split(draw.normal(size=(40, 3, 4, 4)).astype(np.float32), draw.integers(0, 5, 40))
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}})
    splits = Splits(split, split, split)
    evaluator = Evaluator(tmp_path / "model.pt2", splits, spec)
    assert evaluator.passes.layout == layout
    found = evaluator.evaluate([5, 6])
    assert found.error is None
    monkeypatch.setattr("workers.passes.layout_of", lambda *_: torch.contiguous_format)
    evaluator.passes = Passes(evaluator.dense, splits, 40)
    assert evaluator.evaluate([5, 6]).score == pytest.approx(found.score, rel=1e-4)
