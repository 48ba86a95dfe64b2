"""Criteria, the order in which channels go, and BatchNorm recalibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from pruners import latency
from pruners.calibration import calibrate
from pruners.cost import CostModel
from pruners.criteria.apoz import ActivationAPoZRank
from pruners.criteria.base import CRITERIA, Criterion
from pruners.criteria.l1_filter import L1Filter
from pruners.criteria.mean_activation import ActivationMeanRank
from pruners.criteria.slim import Slim
from pruners.criteria.taylorfo import TaylorFOWeight
from pruners.errors import InvalidInput
from pruners.graph.groups import Coupling
from pruners.graph.trace import trace
from pruners.importance import choose, group_scores, unscored, watched
from pruners.latency import measure_latency
from pruners.recovery.batchnorm import recalibrate_batchnorm
from tests.exporting import export, load
from tests.networks import VGG16BN, CifarResNet, randomise
from workers.data import Split, Splits
from workers.evaluator import Evaluator
from workers.spec import JobSpec


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_registry_names_what_there_is() -> None:
    assert "l1" in list(CRITERIA)
    with pytest.raises(InvalidInput, match=r"'l9' is unknown; use one of .*l1"):
        CRITERIA["l9"]
    with pytest.raises(ValueError, match="already registered"):
        CRITERIA.register("l1")(L1Filter)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_every_criterion_explains_itself(name: str) -> None:
    criterion: type[Criterion] = CRITERIA[name]
    assert criterion.__doc__
    assert criterion.reference


def test_channels_with_the_least_score_go_first_and_ties_go_by_index(tmp_path: Path) -> None:
    model = CifarResNet(8)
    filters = torch.ones_like(model.blocks[0].conv1.weight)
    filters[[3, 7, 11]] = 0.1
    model.blocks[0].conv1.weight.data = filters
    module = load(randomise(model), (3, 8, 8), tmp_path / "m.pt2")
    coupling = trace(module)
    index = [group.name for group in coupling.prunable].index("blocks.0.conv1")
    scores = group_scores(module, coupling, L1Filter())
    widths = [group.width for group in coupling.prunable]
    widths[index] = 13
    assert sorted(set(range(16)) - set(choose(coupling, scores, widths)[index].tolist())) == [3, 7, 11]
    widths[index] = 10
    assert choose(coupling, scores, widths)[index].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 12]


def test_a_layers_scale_does_not_decide_for_the_stream(tmp_path: Path) -> None:
    model = randomise(CifarResNet(8))
    module = load(model, (3, 8, 8), tmp_path / "a.pt2")
    model.blocks[0].conv2.weight.data *= 1000
    louder = load(model, (3, 8, 8), tmp_path / "b.pt2")
    first, second = (group_scores(each, trace(each), L1Filter())[0] for each in (module, louder))
    np.testing.assert_allclose(first, second, rtol=1e-6)  # float32 sums, scaled


def network(model: nn.Module, path: Path, shape: tuple[int, ...] = (3, 8, 8)) -> tuple[fx.GraphModule, Coupling]:
    module = load(randomise(model), shape, path / "m.pt2")
    return module, trace(module)


def test_a_class_takes_the_mean_of_its_layers_each_over_its_own_mean(tmp_path: Path) -> None:
    module, coupling = network(CifarResNet(8), tmp_path)
    stream = coupling.prunable[0]
    outputs = dict(coupling.outputs())
    expected = np.zeros(len(stream.classes))
    for layer in stream.layers:
        own = L1Filter().scores(module.get_submodule(layer)).numpy()
        at = [np.flatnonzero(outputs[layer].classes == label) for label in stream.classes]
        expected += [float((own / own.mean())[places].mean()) for places in at]
    assert len(stream.layers) > 1
    np.testing.assert_allclose(group_scores(module, coupling, L1Filter())[0], expected / len(stream.layers), rtol=1e-12)


def test_slim_reads_the_scales_that_a_class_passes_through(tmp_path: Path) -> None:
    module, coupling = network(CifarResNet(8), tmp_path)
    index = [group.name for group in coupling.prunable].index("blocks.1.conv1")
    scale = module.get_submodule("blocks.1.bn1").weight.detach().double().numpy()  # type: ignore[union-attr, operator]
    scores = group_scores(module, coupling, Slim())[index]
    np.testing.assert_allclose(scores, np.abs(scale) / np.abs(scale).mean(), rtol=1e-12)
    assert unscored(module, coupling, Slim()) == []


def test_scores_on_one_scale_stay_so_where_groups_are_compared(tmp_path: Path) -> None:
    module, coupling = network(CifarResNet(8), tmp_path)
    index = [group.name for group in coupling.prunable].index("blocks.1.conv1")
    scale = module.get_submodule("blocks.1.bn1").weight.detach().double().numpy()  # type: ignore[union-attr, operator]
    together = group_scores(module, coupling, Slim(), across_groups=True)[index]
    np.testing.assert_allclose(together, np.abs(scale), rtol=1e-12)
    apart, compared = (group_scores(module, coupling, L1Filter(), across_groups=across) for across in (False, True))
    assert all(np.array_equal(*pair) for pair in zip(apart, compared, strict=True))


def test_groups_without_a_norm_are_nothing_to_slim(tmp_path: Path) -> None:
    module, coupling = network(VGG16BN(divide=32), tmp_path, (3, 32, 32))
    assert [group.name for group in unscored(module, coupling, Slim())] == ["classifier.0"]
    assert unscored(module, coupling, L1Filter()) == []
    file = export(randomise(VGG16BN(divide=32)), (3, 32, 32), tmp_path / "n.pt2")
    images = Split(np.zeros((2, 3, 32, 32), np.float32), np.zeros(2, np.int64))
    data, job = Splits(images, images, images), {"budget": {"ratio": 0.9}, "pruner": {"name": "slim"}}
    with pytest.raises(InvalidInput, match=r"pruner\.name 'slim' .* classifier\.0, which pass .*; use another pruner, or"):
        Evaluator(file, data, JobSpec.model_validate(job))
    job["pruner"]["config_list"] = [{"op_types": ["Conv2d"]}]
    Evaluator(file, data, JobSpec.model_validate(job))


def test_activations_are_seen_after_the_norm_that_follows_or_at_the_layer(tmp_path: Path) -> None:
    module, coupling = network(VGG16BN(divide=32), tmp_path, (3, 32, 32))
    norms = watched(module, coupling, ActivationAPoZRank())
    assert norms["features.0"] is module.get_submodule("features.1")
    assert norms["classifier.0"] is module.get_submodule("classifier.0"), "no norm follows"
    assert norms.keys() == dict(coupling.outputs()).keys()
    for criterion in (ActivationAPoZRank(after="layer"), TaylorFOWeight()):
        assert watched(module, coupling, criterion)["features.0"] is module.get_submodule("features.0")


def test_calibrated_scores_reach_the_groups(tmp_path: Path) -> None:
    """A channel that its norm lifts far above all others is the last to go."""
    module, coupling = network(CifarResNet(8), tmp_path)
    module.get_submodule("blocks.1.bn1").bias.data[5] = 1000.0  # type: ignore[union-attr, operator, index]
    images = torch.rand(4, 3, 8, 8)
    criterion = ActivationMeanRank()
    statistics = calibrate(module, watched(module, coupling, criterion), criterion, [(images, torch.zeros(4).long())])
    index = [group.name for group in coupling.prunable].index("blocks.1.conv1")
    scores = group_scores(module, coupling, criterion, statistics)
    widths = [1 if place == index else group.width for place, group in enumerate(coupling.prunable)]
    assert choose(coupling, scores, widths)[index].tolist() == [5]


def test_cost_model_survives_json_and_batches(tmp_path: Path) -> None:
    coupling = trace(load(CifarResNet(20), (3, 32, 32), tmp_path / "m.pt2"))
    again = CostModel.from_json(coupling.cost.to_json())
    random = np.random.default_rng(0)
    widths = np.stack([random.integers(1, group.width + 1, 50) for group in coupling.prunable], axis=1)
    for metric in ("macs", "params"):
        batch = coupling.cost.batch(metric, widths)
        assert batch.tolist() == [again(metric, row) for row in widths]


def test_recalibration_measures_the_statistics_of_the_data() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9)).eval()
    data = torch.randn(600, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0]) + 5
    recalibrate_batchnorm(module, data.split(200))
    norm = module[0]
    torch.testing.assert_close(norm.running_mean, data.mean(0))
    expected = torch.stack([part.var(0) for part in data.split(200)]).mean(0)
    torch.testing.assert_close(norm.running_var, expected)
    assert norm.momentum == 0.1
    assert not any(part.training for part in module.modules())


def test_recalibration_without_data_or_norms_changes_nothing() -> None:
    norm = nn.BatchNorm1d(3)
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    recalibrate_batchnorm(norm, [])
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]
    assert norm.training
    recalibrate_batchnorm(nn.Linear(2, 2), [torch.ones(1, 2)])


@pytest.mark.parametrize(
    ("tries", "found", "made"),
    [
        ([[1, 1, 1, 1], [9, 9, 9, 9]], 1.0, 1),
        ([[1, 9, 1, 9], [2, 2, 2, 2], [1, 1, 1, 1]], 2.0, 2),
        ([[4, 9, 1, 9], [2, 4, 2, 4], [1, 9, 1, 9], [1, 9, 1, 9], [1, 1, 1, 1]], 3.0, 4),
    ],
)
def test_the_quietest_of_some_tries_counts(
    monkeypatch: pytest.MonkeyPatch, tries: list[list[float]], found: float, made: int
) -> None:
    passes = iter([time for taken in tries for time in [100.0] * latency.WARM_UP + taken])
    monkeypatch.setattr(latency, "_time", lambda module, example: next(passes))
    (measured,) = measure_latency([(nn.Identity(), torch.ones(1))], rounds=4)
    assert measured.median_ms == found
    assert len(list(passes)) == (len(tries) - made) * (latency.WARM_UP + 4)


def test_latency_is_measured_for_every_network() -> None:
    threads = torch.get_num_threads()
    images = torch.ones(64, 1500)
    first, second = measure_latency([(nn.Identity(), images), (nn.Linear(1500, 1500), images)], rounds=5)
    assert 0 < first.median_ms < second.median_ms
    assert min(first.spread_ms, second.spread_ms) >= 0
    assert torch.get_num_threads() == threads
