"""NNI's automatic pruners: exact after real removal, on the caller's functions, and none of NNI's failures."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruners import ModelSpeedup
from pruners.errors import InvalidInput
from pruners.latency import Latency
from pruners.latency_table import LatencyTable
from searchers import AMCPruner, AutoCompressPruner, NetAdaptPruner, SensitivityPruner, SimulatedAnnealingPruner
from searchers.library.history import read_probes
from tests.exporting import count_macs
from tests.networks import randomise

CONVOLUTIONS = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
EXAMPLE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A stream of two coupled convolutions, a convolution inside its block, and one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 24, 3, padding=1)
        self.conv3 = nn.Conv2d(24, 16, 3, padding=1)
        self.conv4 = nn.Conv2d(16, 32, 3)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.conv3(F.relu(self.conv2(x))) + x)
        return self.linear(F.relu(self.conv4(x)).mean((2, 3)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return randomise(Small())


REFERENCE = network()(EXAMPLE).detach()


def error(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model.eval()(EXAMPLE) - REFERENCE).abs().mean())


def quality(model: nn.Module) -> float:
    return -error(model)


def train(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    ((model.train()(EXAMPLE) - REFERENCE) ** 2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def netadapt(model: nn.Module, config: Any = CONVOLUTIONS, evaluator: Callable[..., Any] = quality, **more: Any) -> Any:
    given = {"dummy_input": EXAMPLE, "experiment_data_dir": None, "sparsity_per_iteration": 0.125, **more}
    return NetAdaptPruner(model, config, given.pop("tuner", train), evaluator, **given)


def annealing(model: nn.Module, config: Any = CONVOLUTIONS, evaluator: Callable[..., Any] = quality, **more: Any) -> Any:
    given = {"dummy_input": EXAMPLE, "experiment_data_dir": None, "cool_down_rate": 0.8, **more}
    return SimulatedAnnealingPruner(model, config, evaluator, **given)


def sensitivity(model: nn.Module, config: Any = CONVOLUTIONS, evaluator: Callable[..., Any] = quality, **more: Any) -> Any:
    given = {"dummy_input": EXAMPLE, "sparsity_per_iter": 0.25, "max_trials": 20, **more}
    return SensitivityPruner(model, config, given.pop("tuner", train), evaluator, **given)


def amc(model: nn.Module, config: Any = None, evaluator: Callable[..., Any] = quality, **more: Any) -> Any:
    given = {"output_dir": None, "train_episode": 24, "warmup": 12, **more}
    return AMCPruner(model, config or [{"op_types": ["Conv2d"]}], evaluator, [(EXAMPLE, None)], **given)


BY_SPARSITY = [netadapt, annealing, sensitivity]
ALL = [*BY_SPARSITY, amc]


def weights(model: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("make", ALL)
def test_what_is_masked_is_removed_for_real_and_meets_the_budget(make: Callable[..., Any], tmp_path: Path) -> None:
    model = network()
    dense = weights(model)
    pruner = make(model)
    assert pruner.compress() is model
    small = pruner.compact(EXAMPLE)
    assert pruner.not_honoured == {}
    widths = pruner.history.trials[-1].widths
    metric, limit = ("macs", 0.5) if make is amc else ("weights", dense // 2)
    if make is amc:
        limit = pruner.network.cost(pruner.network.dense) // 2
    costs = [pruner.network.cost(trial.widths) for trial in pruner.history.trials]
    assert pruner.network.metric == metric
    if make in (annealing, amc):
        assert max(costs) <= limit, "no plan is over the budget, not even while it searches"
    if metric == "weights":
        assert weights(small) <= limit
        masked = {name: masks["weight"] for name, masks in pruner.masks.items()}
        left = sum(
            int(masked[name].sum()) if name in masked else layer.weight.numel()
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d)
        )
        assert left == weights(small)
    space = pruner.network.space(limit)
    found = tuple(
        small.get_submodule(name).out_channels if isinstance(small.get_submodule(name), nn.Conv2d) else width
        for name, width in zip(pruner.network.names, widths, strict=True)
    )
    assert limit - space.cost(found) < limit * 0.1 or space.fill(found) == found
    with torch.no_grad():
        outputs, expected = small(EXAMPLE), model.eval()(EXAMPLE)
    # Relative to the largest output: float32 sums in another order.
    assert float((outputs - expected).abs().max() / expected.abs().max()) < 1e-5
    pruner.export_model(tmp_path / "model.pth", mask_path=tmp_path / "mask.pth")
    plain = Small().eval()
    plain.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    assert torch.equal(plain(EXAMPLE), model(EXAMPLE))
    again = ModelSpeedup(plain, EXAMPLE, tmp_path / "mask.pth").speedup_model()
    assert weights(again) == weights(small)


def clock(networks: Sequence[tuple[nn.Module, Tensor]]) -> list[Latency]:
    """A machine on which every MAC takes a microsecond, and nothing else takes any time."""
    return [Latency(1e-3 * count_macs(module, tuple(x.shape[1:])), 0.0) for module, x in networks]


@pytest.mark.parametrize("metric", ["macs", "latency_ns"])
@pytest.mark.parametrize("make", BY_SPARSITY)
def test_another_cost_can_be_what_is_shared_out(make: Callable[..., Any], metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchers.library.network.LatencyTable", partial(LatencyTable, measure=clock))
    pruner = make(network(), metric=metric)
    pruner.compress()
    network_ = pruner.network
    costs = [network_.cost(trial.widths) for trial in pruner.history.trials]
    limit = network_.cost(network_.dense) // 2
    assert min(costs) <= limit
    best = [trial.widths for trial in pruner.history.trials if network_.cost(trial.widths) <= limit]
    assert all(network_.space(limit).fill(widths) == widths for widths in best)


@pytest.mark.parametrize("make", BY_SPARSITY)
def test_single_weights_need_no_example(make: Callable[..., Any]) -> None:
    model = network()
    pruner = make(model, base_algo="level", dummy_input=None)
    pruner.compress()
    zeros = sum(int((layer.weight == 0).sum()) for layer in model.modules() if isinstance(layer, nn.Conv2d))
    # A layer's weights go in steps, of which it has a thousand at most.
    assert 0.5 <= zeros / weights(model) < 0.502


@pytest.mark.parametrize("make", ALL)
def test_layers_that_are_left_out_stay_whole(make: Callable[..., Any]) -> None:
    model = network()
    names = ["conv2", "conv4"]
    share = {} if make is amc else {"sparsity": 0.3}
    pruner = make(model, [{**share, "op_names": names}], **({"flops_ratio": 0.7} if make is amc else {}))
    pruner.compress()
    small = pruner.compact(EXAMPLE)
    changed = {
        name
        for name, layer in small.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.out_channels != model.get_submodule(name).out_channels
    }
    assert changed <= set(names)
    assert changed


@pytest.mark.parametrize("make", ALL)
def test_an_error_of_the_callers_own_leaves_the_network_as_it_was(make: Callable[..., Any]) -> None:
    calls: list[int] = []

    def fails(model: nn.Module) -> float:
        calls.append(0)
        if len(calls) == 5:
            raise RuntimeError("the caller's own")
        return quality(model)

    model = network().train()
    model.linear.eval()
    before, modes = state(model), [module.training for module in model.modules()]
    pruner = make(model, evaluator=fails)
    with pytest.raises(RuntimeError, match="the caller's own"):
        pruner.compress()
    assert same(state(model), before)
    assert [module.training for module in model.modules()] == modes
    assert not pruner.masks


@pytest.mark.parametrize("make", BY_SPARSITY)
def test_less_may_be_better(make: Callable[..., Any]) -> None:
    most, least = make(network()), make(network(), evaluator=error, optimize_mode="minimize")
    assert same(state(most.compress()), state(least.compress()))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_search_without_a_number_ends_and_says_so(make: Callable[..., Any], value: float) -> None:
    model = network()
    before = state(model)
    with pytest.raises(InvalidInput, match=r"^evaluator returned no finite number for any plan within the budget"):
        make(model, evaluator=lambda _: value).compress()
    assert same(state(model), before)


@pytest.mark.parametrize("make", BY_SPARSITY)
def test_a_high_sparsity_and_an_evaluator_that_says_nothing_end_too(make: Callable[..., Any]) -> None:
    model = network()
    dense = weights(model)
    pruner = make(model, [{"sparsity": 0.9, "op_types": ["Conv2d"]}], evaluator=lambda _: 1.0)
    pruner.compress()
    assert weights(pruner.compact(EXAMPLE)) <= dense // 10


def test_the_weights_of_each_rounds_winner_carry_on() -> None:
    model = network()
    before = model.linear.bias.detach().clone()

    def tuner(model: nn.Module) -> None:
        model.linear.bias.data += 1.0

    pruner = netadapt(model, tuner=tuner)
    pruner.compress()
    rounds = 4  # of an eighth each
    assert torch.allclose(model.linear.bias, before + rounds)
    assert len(pruner.history.trials) > 2 * rounds


def test_training_leaves_masked_weights_at_zero() -> None:
    def drift(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.data += 0.01

    model = network()
    pruner = netadapt(model, tuner=drift)
    pruner.compress()
    assert all(
        bool((model.get_submodule(name).weight[masks["weight"] == 0] == 0).all()) for name, masks in pruner.masks.items()
    )


def test_the_scale_of_the_evaluator_does_not_heat_the_walk() -> None:
    fractions, percents = annealing(network()), annealing(network(), evaluator=lambda model: 2.0**10 * quality(model))
    fractions.compress()
    percents.compress()
    assert [trial.widths for trial in fractions.history.trials] == [trial.widths for trial in percents.history.trials]


def test_cooling_slower_tries_more() -> None:
    fast, slow = annealing(network(), chains=1), annealing(network(), chains=1, cool_down_rate=0.9)
    fast.compress()
    slow.compress()
    # log(20 / 100) / log(rate), rounded up, behind eight first plans.
    assert len(fast.history.trials) == 8 + 8
    assert 8 + 8 < len(slow.history.trials) <= 8 + 16  # it ends where nothing new is found


def test_sensitivity_trains_behind_every_iteration_and_calls_as_nni_does() -> None:
    model, tuned, judged = network(), [], []

    def tuner(model: nn.Module, epochs: int) -> None:
        tuned.append(epochs)

    def judge(model: nn.Module, scale: float) -> float:
        judged.append(scale)
        return scale * quality(model)

    pruner = sensitivity(model, evaluator=judge, tuner=tuner)
    pruner.compress(eval_args=[model], eval_kwargs={"scale": 2.0}, finetune_args=[model], finetune_kwargs={"epochs": 3})
    assert tuned == [3, 3]
    assert set(judged) == {2.0}


def test_curves_are_kept_drawn_and_taken_up_again(tmp_path: Path) -> None:
    first = sensitivity(network(), tuner=None, sparsity_per_iter=0.5, checkpoint_dir=tmp_path / "one")
    first.compress()
    assert set(first.sensitivities) == set(first.network.names)
    iterations = json.loads((tmp_path / "one" / "sensitivity.json").read_text())
    assert len(iterations) == 1
    rows = list(csv.DictReader((tmp_path / "one" / "sensitivity.csv").read_text().splitlines()))
    assert len(rows) == sum(len(curve) for each in iterations for curve in each["curves"].values())
    picture = ElementTree.fromstring((tmp_path / "one" / "sensitivity.svg").read_text())  # noqa: S314 (our own)
    lines = [line for line in picture.iter() if line.get("class") == "curve"]
    assert len(lines) == sum(len(each["curves"]) for each in iterations)

    again = sensitivity(network(), tuner=None, sparsity_per_iter=0.5)
    again.compress(resume_sensitivity=tmp_path / "one" / "sensitivity.json")
    for group, curve in first.sensitivities.items():
        assert curve.items() <= again.sensitivities[group].items()
    tried = {trial.widths for trial in again.history.trials}
    known = {widths for widths, _ in read_probes(tmp_path / "one" / "sensitivity.json", again.network)}
    assert again.network.dense in known
    assert not tried & known
    other = sensitivity(network(), [{"sparsity": 0.5, "op_types": ["Conv2d"]}, {"exclude": True, "op_names": ["conv1"]}])
    other.network.names = ("others",) * len(other.network.names)
    with pytest.raises(InvalidInput, match=r"is of another network or of other layers; analyse this one anew\.$"):
        other.compress(resume_sensitivity=tmp_path / "one" / "sensitivity.json")
    for text in ("", "[]", "{}", '[{"widths": 3}]'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InvalidInput, match=r"is no sensitivity\.json"):
            again.compress(resume_sensitivity=tmp_path / "bad.json")


def test_a_drop_beyond_the_threshold_ends_a_groups_curve() -> None:
    deep, shallow = (
        sensitivity(network(), tuner=None, sparsity_per_iter=0.5, max_trials=120, acc_drop_threshold=drop)
        for drop in (1e9, 1e-9)
    )
    deep.compress()
    shallow.compress()
    longest = {name: len(curve) for name, curve in deep.sensitivities.items()}
    assert all(len(curve) <= longest[name] for name, curve in shallow.sensitivities.items())
    assert sum(map(len, shallow.sensitivities.values())) < sum(longest.values())


def test_amc_calls_as_nni_does_and_rewards_macs() -> None:
    loader = [(EXAMPLE, None)]
    seen: list[object] = []

    def percent(val_loader: object, model: nn.Module) -> float:
        seen.append(val_loader)
        return 100 / (1 + error(model))

    pruner = AMCPruner(
        network(),
        [{"op_types": ["Conv2d"]}],
        percent,
        loader,
        reward="acc_flops_reward",
        output_dir=None,
        train_episode=8,
        warmup=4,
        rbound=1.0,
        hidden1=300,
    )
    pruner.compress()
    assert all(each is loader for each in seen)
    with pytest.raises(InvalidInput, match=r"acc_flops_reward needs an accuracy in percent"):
        amc(network(), evaluator=lambda _: -1.0, reward="acc_flops_reward").compress()


def test_the_history_is_on_disk_after_every_trial(tmp_path: Path) -> None:
    lengths: list[int] = []

    def looking(model: nn.Module) -> float:
        path = tmp_path / "search_history.json"
        lengths.append(len(json.loads(path.read_text())) if path.exists() else 0)
        return quality(model)

    pruner = annealing(network(), evaluator=looking, experiment_data_dir=tmp_path)
    pruner.compress()
    trials = pruner.history.trials
    assert lengths == list(range(len(trials)))
    rows = json.loads((tmp_path / "search_history.json").read_text())
    table = list(csv.DictReader((tmp_path / "search_history.csv").read_text().splitlines()))
    assert [row["performance"] for row in rows] == [trial.performance for trial in trials]
    assert [(float(row["performance"]), json.loads(row["sparsity"])) for row in table] == [
        (row["performance"], row["sparsity"]) for row in rows
    ]
    result = json.loads((tmp_path / "search_result.json").read_text())
    assert result["performance"] == max(trial.performance for trial in trials)
    assert result["cost"] <= result["limit"] == result["dense"] // 2
    masks = torch.load(tmp_path / "best_masks.pth", weights_only=True)
    assert masks.keys() == pruner.masks.keys()


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, criterion: Callable[..., Tensor], epoch: int) -> None:
    optimizer.zero_grad()
    criterion(model.train()(EXAMPLE), REFERENCE.argmax(1)).backward()
    optimizer.step()


def compressing(model: nn.Module, config: Any = CONVOLUTIONS, evaluator: Callable[..., Any] = quality, **more: Any) -> Any:
    given = {"cool_down_rate": 0.5, "chains": 1, "admm_num_iterations": 1, "admm_training_epochs": 1, **more}
    given = {"experiment_data_dir": None, "num_iterations": 2, **given}
    return AutoCompressPruner(model, config, given.pop("tuner", epoch), evaluator, EXAMPLE, **given)


def test_auto_compress_removes_in_rounds_what_was_asked(tmp_path: Path) -> None:
    model = network()
    before, dense = state(model), weights(model)
    trained: list[int] = []

    def trainer(model: nn.Module, optimizer: torch.optim.Optimizer, criterion: Callable[..., Tensor], epoch: int) -> None:
        trained.append(weights(model))
        optimizer.zero_grad()
        criterion(model.train()(EXAMPLE), REFERENCE.argmax(1)).backward()
        optimizer.step()

    pruner = compressing(model, tuner=trainer, admm_training_epochs=3, experiment_data_dir=tmp_path)
    with pytest.raises(InvalidInput, match=r"^model is not compressed yet; call compress\(\) first\.$"):
        pruner.export_model(tmp_path / "early.pth")
    small = pruner.compress()
    assert same(state(model), before), "the caller's network is theirs"
    assert weights(small) <= dense // 2
    assert pruner.network.space(dense // 2).fill(tuple(pruner.history.trials[-1].widths)) == pruner.history.trials[-1].widths
    first, second = trained[0], trained[3]
    assert (len(trained), first) == (6, dense)
    # √½ of the weights are left behind the first round, less one step of a group at most.
    assert 0.6 * dense < second <= 0.5**0.5 * dense
    results = [json.loads((tmp_path / f"round_{n}" / "search_result.json").read_text()) for n in (1, 2)]
    assert [result["cost"] for result in results] == [second, weights(small)]
    pruner.export_model(tmp_path / "small.pth")
    assert state(small).keys() == torch.load(tmp_path / "small.pth", weights_only=True).keys()


REFUSED: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (netadapt, {"dummy_input": None}, r"dummy_input is missing; base_algo l1 removes channels"),
    (annealing, {"dummy_input": None, "base_algo": "fpgm"}, r"dummy_input is missing; base_algo fpgm"),
    (netadapt, {"base_algo": "taylorfo"}, r"base_algo 'taylorfo' is not one that searches run; use one of level, l1, l2, fpgm"),
    (netadapt, {"base_algo": "level", "metric": "macs"}, r"metric 'macs' is not lowered by base_algo level"),
    (netadapt, {"metric": "flops"}, r"metric 'flops' is unknown; use one of weights, macs"),
    (netadapt, {"optimize_mode": "max"}, r"optimize_mode 'max' must be maximize or minimize"),
    (netadapt, {"tuner": None}, r"short_term_fine_tuner is no function"),
    (netadapt, {"evaluator": 3}, r"evaluator 3 is no function"),
    (netadapt, {"sparsity_per_iteration": 0}, r"sparsity_per_iteration 0 must be between"),
    (annealing, {"cool_down_rate": 1.0}, r"cool_down_rate 1\.0 must be between 0 and 1, both excluded, or it never cools"),
    (annealing, {"stop_temperature": 200}, r"stop_temperature 200 must be above 0 and below start_temperature, which is 100"),
    (annealing, {"config": [{"sparsity": 0.0, "op_types": ["Conv2d"]}]}, r"config_list sparsity 0\.0 prunes nothing"),
    (
        annealing,
        {"config": [*CONVOLUTIONS, {"sparsity": 0.2, "op_names": ["conv1"]}]},
        r"config_list sparsities \[0\.2, 0\.5\] differ; state one",
    ),
    (
        annealing,
        {"config": [{"sparsity": 0.9999, "op_types": ["Conv2d"]}]},
        r"config_list sparsity 0\.9999 is out of reach: of ",
    ),
    (
        annealing,
        {"config": [{"sparsity": 0.5, "op_names": ["conv3"]}]},
        r"config_list selects no channels that can be removed: conv1 only loses channels together with conv1, which",
    ),
    (
        annealing,
        {"config": [{"sparsity": 0.5, "op_names": ["linear"]}]},
        r"config_list selects no channels that can be removed: linear is an output",
    ),
    (sensitivity, {"sparsity_proportion_calc": max}, r"sparsity_proportion_calc is not taken"),
    (sensitivity, {"checkpoint_dir": "a", "experiment_data_dir": "b"}, r"checkpoint_dir 'a' is another name"),
    (compressing, {"base_algo": "level"}, r"base_algo 'level' must be l1 or l2"),
    (compressing, {"num_iterations": 0}, r"num_iterations 0 must be 1 or more"),
    (compressing, {"tuner": "SGD"}, r"trainer 'SGD' is no function"),
    (amc, {"flops_ratio": 1.0}, r"flops_ratio 1\.0 must be between"),
    (amc, {"flops_ratio": 1e-6}, r"flops_ratio 1e-06 is out of reach"),
    (amc, {"config": CONVOLUTIONS}, r"config_list\[0\]\.sparsity is no key of AMCPruner"),
    (amc, {"hidden1": 64}, r"hidden1 64 is not to be set: .* \(NNI's default, 300, is accepted\)"),
    (amc, {"n_calibration_batches": 1}, r"n_calibration_batches 1 has no use"),
    (amc, {"episodes": 3}, r"episodes is no argument of AMCPruner"),
    (amc, {"warmup": 24}, r"warmup 24 must be 1 or more and less than train_episode, which is 24"),
]


@pytest.mark.parametrize(("make", "arguments", "message"), REFUSED)
def test_what_cannot_be_used_is_refused_before_any_work(
    make: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    def never(_: nn.Module) -> float:
        pytest.fail("the evaluator was called")

    with pytest.raises(InvalidInput, match=f"^{message}") as refusal:
        make(network(), **{"evaluator": never, **arguments})
    assert re.fullmatch(r"[^\n]+\.", str(refusal.value))


def test_an_evaluator_that_returns_no_number_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^evaluator \[0\.5\] was returned, which is no number; return one float\.$"):
        annealing(network(), evaluator=lambda _: [0.5]).compress()
