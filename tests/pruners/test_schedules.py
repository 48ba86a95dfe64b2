"""AGP and Linear: exact sparsities at every moment; the calls of NNI's page and of ours for all schedules."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruners import ADMMPruner, AGPPruner, LinearPruner, LotteryTicketPruner
from pruners.errors import InvalidInput
from pruners.schedules.base import ONE_SHOT
from tests.pruners.training import EVERY, data, masked, network, sgd, train


def agp_reference(initial: str, final: str, start: int, end: int, frequency: int, epoch: int) -> Fraction:
    """The formula of the paper on NNI's span, in exact fractions."""
    first, last = Fraction(initial), Fraction(final)
    span = (end - start - 1) // frequency * frequency
    if epoch <= start:
        return first
    if epoch >= start + span:
        return last
    now = start + (epoch - start) // frequency * frequency  # it moves only every frequency epochs
    return last + (first - last) * (1 - Fraction(now - start, span)) ** 3


@pytest.mark.parametrize(
    ("initial", "final", "start", "end", "frequency"),
    [("0", "0.8", 0, 10, 1), ("0.1", "0.9", 2, 12, 3), ("0.05", "0.95", 1, 8, 2), ("0.5", "0.5", 0, 5, 1)],
)
def test_agp_follows_the_cubic_formula_at_each_epoch_exactly(
    initial: str, final: str, start: int, end: int, frequency: int
) -> None:
    numbers = {"initial_sparsity": float(initial), "final_sparsity": float(final)}
    entry = {**numbers, "start_epoch": start, "end_epoch": end, "frequency": frequency, "op_types": EVERY}
    model = network()
    optimizer = sgd(model)
    pruner = AGPPruner(model, [entry], optimizer, pruning_algorithm="level")
    assert pruner.compress() is model
    before = {name: torch.zeros_like(layer.weight, dtype=torch.bool) for name, layer in pruner.pruner.layers.items()}
    for epoch in range(end + 3):
        pruner.update_epoch(epoch)
        train(model, optimizer)
        wanted = agp_reference(initial, final, start, end, frequency, epoch)
        for name, layer in pruner.pruner.layers.items():
            gone = layer.weight == 0
            assert pruner.sparsity_at(epoch)[name] == pytest.approx(float(wanted), abs=1e-15)  # a float's last digit
            assert int(gone.sum()) == masked(pruner, name) == math.floor(wanted * layer.weight.numel())
            assert bool(gone[before[name]].all())
            before[name] = gone
    assert agp_reference(initial, final, start, end, frequency, end - 1) == Fraction(final)


def test_linear_masks_equally_much_at_every_move() -> None:
    model = network()
    pruner = LinearPruner(model, [{"final_sparsity": 0.8, "end_epoch": 5, "op_names": ["conv1", "fc"]}])
    pruner.compress()
    for epoch, sparsity in enumerate(["0", "0.2", "0.4", "0.6", "0.8", "0.8"]):
        pruner.update_epoch(epoch)
        assert masked(pruner, "conv1") == math.floor(Fraction(sparsity) * 90)
        assert masked(pruner, "fc") == 40 * Fraction(sparsity)


def test_a_step_schedule_moves_behind_the_optimisers_steps() -> None:
    config = [{"final_sparsity": 0.8, "start_step": 3, "end_step": 16, "frequency": 4, "op_names": ["fc"]}]
    model = network()
    optimizer = sgd(model)
    pruner = AGPPruner(model, config, optimizer, unit="step")
    pruner.compress()
    seen = []
    for _ in range(3):
        for images, labels in data():
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            seen.append(masked(pruner, "fc"))
        pruner.update_epoch(0)  # counts nothing
    assert seen == [math.floor(agp_reference("0", "0.8", 3, 16, 4, step) * 40) for step in range(1, 19)]


@pytest.mark.parametrize("algorithm", list(ONE_SHOT))
def test_agp_runs_over_every_one_shot_pruner(algorithm: str, tmp_path: Path) -> None:
    by_data = algorithm in ("apoz", "mean_activation", "taylorfo")
    options = {"calibration": data(1)} if by_data else {}
    kind = "BatchNorm2d" if algorithm == "slim" else "Conv2d"
    model = network()
    optimizer = sgd(model)
    config = [{"final_sparsity": 0.5, "end_epoch": 4, "op_types": [kind]}]
    pruner = AGPPruner(model, config, optimizer, pruning_algorithm=algorithm, **options)
    pruner.compress()
    counts = []
    for epoch in range(4):
        pruner.update_epoch(epoch)
        train(model, optimizer)
        counts.append({name: masked(pruner, name) / layer.weight.numel() for name, layer in pruner.pruner.layers.items()})
    assert {name: float(share) for name, share in counts[-1].items()} == dict.fromkeys(pruner.config, 0.5)
    assert all(earlier[name] <= later[name] for earlier, later in itertools.pairwise(counts) for name in later)
    pruner.export_model(tmp_path / "model.pth", tmp_path / "mask.pth")
    network(seed=1).load_state_dict(torch.load(tmp_path / "model.pth"))


def test_agp_gathers_what_it_needs_from_the_users_own_passes() -> None:
    model = network()
    optimizer = sgd(model)
    config = [{"final_sparsity": 0.5, "end_epoch": 3, "op_types": ["Conv2d"]}]
    pruner = AGPPruner(model, config, optimizer, pruning_algorithm="taylorfo", statistics_batch_num=2)
    pruner.compress()
    for epoch in range(3):
        pruner.update_epoch(epoch)
        train(model, optimizer)
    assert masked(pruner, "conv2") == 450


def test_coupled_layers_share_masks_and_really_go() -> None:
    model = network()
    config = [{"final_sparsity": 0.5, "end_epoch": 3, "op_types": ["Conv2d"]}]
    example = torch.zeros(2, 1, 6, 6)
    pruner = AGPPruner(model, config, pruning_algorithm="l1", dependency_aware=True, dummy_input=example)
    pruner.compress()
    for epoch in range(3):
        pruner.update_epoch(epoch)
    small = pruner.compact(example)
    assert not pruner.not_honoured
    assert small.conv1.out_channels == small.conv2.out_channels == 5


@pytest.mark.parametrize(
    ("entry", "more", "sentence"),
    [
        ({"end_epoch": 1}, {}, r"^config_list\[0\]\.end_epoch 1(\.0)? leaves no time to prune; give 2 or more\.$"),
        ({"end_epoch": 6, "start_epoch": 2, "frequency": 4}, {}, r"end_epoch 6(\.0)? leaves no time to prune; give 7 or more"),
        ({"end_epoch": 9, "initial_sparsity": 0.9}, {}, r"initial_sparsity 0\.9 is above final_sparsity 0\.8; masks only grow"),
        ({"end_step": 9}, {}, r"end_step is no key of AGPPruner; the closest is"),
        ({"end_epoch": 9}, {"unit": "batch"}, r'^unit \'batch\' must be "epoch" or "step"\.$'),
        ({"end_step": 9}, {"unit": "step"}, r"^optimizer is missing"),
        ({"end_epoch": 9}, {"pruning_algorithm": "l3"}, r"^pruning_algorithm 'l3' is no pruner .*; use one of level, slim"),
    ],
)
def test_a_gradual_schedule_that_cannot_work_is_refused(entry: dict[str, object], more: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        AGPPruner(network(), [{"final_sparsity": 0.8, "op_types": EVERY, **entry}], **more)  # type: ignore[arg-type]


def test_the_snippets_of_nni_run() -> None:
    model = network()
    optimizer = sgd(model)
    entry = {"initial_sparsity": 0, "final_sparsity": 0.8, "start_epoch": 0, "end_epoch": 10, "frequency": 1}
    pruner = AGPPruner(model, [{**entry, "op_types": ["default"]}], optimizer, pruning_algorithm="level")
    pruner.compress()
    for epoch in range(10):
        pruner.update_epoch(epoch)
        train(model, optimizer)
    assert masked(pruner, "conv2") == 720

    called = []

    def trainer(model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, callback: object) -> None:
        """NNI's own signature, with its parameters in its order, and its call before the step."""
        called.append(epoch)
        for images, labels in data(1):
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            if callback:
                callback()  # type: ignore[operator]
            optimizer.step()

    model = network()
    config_list = [
        {"sparsity": 0.8, "op_types": ["Conv2d"], "op_names": ["conv1"]},
        {"sparsity": 0.92, "op_types": ["Conv2d"], "op_names": ["conv2"]},
    ]
    admm = ADMMPruner(model, config_list, trainer=trainer, num_iterations=30, epochs=5)
    admm.compress()
    assert called == [0, 1, 2, 3, 4] * 30
    assert masked(admm, "conv1") == 8 * 9
    assert masked(admm, "conv2") == 9 * 90

    model = network()
    optimizer = sgd(model)
    tickets = LotteryTicketPruner(model, [{"prune_iterations": 5, "sparsity": 0.8, "op_types": ["default"]}], optimizer)
    tickets.compress()
    for _ in tickets.get_prune_iterations():
        tickets.prune_iteration_start()
        for _ in range(2):
            train(model, optimizer)
    assert masked(tickets, "fc") == 32
