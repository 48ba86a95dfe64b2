"""The zoo's own arithmetic: what counts as in reach, what the tables say, and that a wrong removal is noticed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.zoo import measure, run
from benchmarks.zoo.coverage import coverage, weights_of
from benchmarks.zoo.networks import ZOO, Network, randomise
from pruners.graph.trace import trace
from tests.exporting import load


class Reach(nn.Module):
    """One layer in reach, one whose inputs are in part, and one between the network's input and its output."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.partial, self.direct = nn.Conv2d(3, 8, 1), nn.Conv2d(11, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.partial(torch.cat([x, torch.relu(self.inner(x))], 1)) + self.direct(x)


def test_coverage_counts_elements_with_a_removable_input_or_output(tmp_path: Path) -> None:
    model = Reach()
    found = coverage(model, trace(load(model, (3, 4, 4), tmp_path / "m.pt2")), {})
    assert found.total == {"inner.weight": 24, "partial.weight": 22, "direct.weight": 6}
    assert found.covered == {"inner.weight": 24, "partial.weight": 16, "direct.weight": 0}
    assert found.share == pytest.approx(40 / 52)
    assert dict(found.gaps(5)) == pytest.approx({"partial.weight": 6 / 52, "direct.weight": 6 / 52})


def test_tied_weights_and_attention_count_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3), "c": nn.MultiheadAttention(4, 2)})
    model["b"].weight = model["a"].weight
    assert list(weights_of(model)) == ["a.weight", "c.in_proj_weight", "c.out_proj.weight"]


@pytest.mark.parametrize("name", ["cnn_1d", "squeeze_excite"])
def test_a_network_that_prunes_well_passes(name: str, tmp_path: Path) -> None:
    found: dict[str, object] = {}
    measure.measure(ZOO[name], tmp_path, found)
    assert found["coverage"] == 1.0
    assert found["difference"] <= measure.TOLERANCE < found["change"]
    assert found["frozen"] == {"is an output of the network": 1}


def test_a_wrong_removal_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "silence", lambda module, coupling, keep: module)
    with pytest.raises(measure.Failure, match=r"shrunk and masked network are .* apart"):
        measure.measure(ZOO["cnn_1d"], tmp_path, {})


def test_removal_that_cannot_be_seen_is_no_proof(tmp_path: Path) -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.inner(x)) * 1e-9) + 1.0

    with pytest.raises(measure.Failure, match="changes the outputs by no more than"):
        measure.measure(Network("silent", Silent, (3,)), tmp_path, {})


def test_too_little_in_reach_fails(tmp_path: Path) -> None:
    with pytest.raises(measure.Failure, match=r"only 76\.9% of the parameters are prunable, 95% are due"):
        measure.measure(Network("reach", Reach, (3, 4, 4)), tmp_path, {})


def test_randomised_networks_have_no_silent_or_equal_channels() -> None:
    model = randomise(nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4), nn.LayerNorm(4)))
    for tensor in (model[1].weight, model[1].bias, model[1].running_var, model[1].running_mean, model[2].weight, model[2].bias):
        assert len(tensor.unique()) == 4
    assert model[1].running_var.min() >= 0.5
    assert not model.training


def test_names_are_unique_and_inputs_repeat() -> None:
    assert len(ZOO) >= 45
    network = ZOO["cnn_1d"]
    assert torch.equal(network.example(2), network.example(2))
    first, second = network.make(), network.make()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def result(name: str, verdict: str, peer: str, scale: float) -> dict[str, object]:
    timings = {"trace_ms": 10 * scale, "shrink_ms": scale, "macs_kept": 0.25, "frozen": {"r": 2}}
    return {
        "name": name,
        "verdict": verdict,
        **(timings if verdict == "ok" else {"frozen": {"r": 1, "s": 4}}),
        "peer": {"graph_ms": 30 * scale, "prune_ms": 7 * scale, "macs_kept": 0.5, "peer_verdict": peer},
    }


def test_tables_count_reasons_and_take_medians_where_both_succeed() -> None:
    results = [
        result("a", "ok", "ok", 1),
        result("b", "ok", "ok", 3),
        result("c", "ok", "bad", 100),
        result("d", "no", "ok", 9),
    ]
    console = Console(width=200, file=io.StringIO())
    console.print(run.frozen(results), run.comparison(results))
    lines = [line.replace("│", " ").replace("┃", " ").split() for line in console.file.getvalue().splitlines()]
    assert ["7", "r"] in lines
    assert ["4", "s"] in lines
    medians = next(line for line in lines if line[:1] == ["medians,"])
    assert medians == ["medians,", "successes", "20", "60", "2", "14", *["3", "of", "4"], *["3", "of", "4"]]


def test_a_crash_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "executable", "false")
    assert run.measure("cnn_1d", compare=False)["verdict"].startswith("crashed with exit code 1")
