"""Lottery Ticket: exact sparsities by round, and what each round goes back to."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pruners import LotteryTicketPruner
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from tests.pruners.training import EVERY, data, network, sgd, train


def ticket(model: nn.Module, optimizer: torch.optim.Optimizer, rounds: int = 3, **more: object) -> LotteryTicketPruner:
    config = [{"prune_iterations": rounds, "sparsity": 0.8, "op_types": EVERY}]
    return LotteryTicketPruner(model, config, optimizer, **more)  # type: ignore[arg-type]


def test_a_ticket_begins_every_round_where_the_first_began() -> None:
    model = network()
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    pruner = ticket(model, optimizer, 3, lr_scheduler=scheduler)
    assert pruner.compress() is model
    assert list(pruner.get_prune_iterations()) == [0, 1, 2, 3]
    trained: dict[str, Tensor] = {}
    for i in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        sparsity = 0.8 if i == 3 else 1 - 0.2 ** (i / 3)  # the last is exact, which the formula's rounding need not be
        for name, layer in pruner.pruner.layers.items():
            keep = layer.weight_mask != 0
            assert int((~keep).sum()) == math.floor(share(pruner.sparsity_in(i)[name], keep.numel()))
            assert pruner.sparsity_in(i)[name] == pytest.approx(sparsity)
            assert torch.equal(layer.weight, torch.where(keep, start[f"{name}.weight"], 0.0))
            if i > 0:
                smallest = trained[name].abs().flatten().argsort()[: int((~keep).sum())]
                assert not keep.flatten()[smallest].any()
        for name in ("bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked", "conv2.bias"):
            assert torch.equal(model.state_dict()[name], start[name])
        assert not optimizer.state
        assert scheduler.last_epoch == 0
        assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0] == 0.05
        for epoch in range(2):
            pruner.update_epoch(epoch)
            train(model, optimizer)
            scheduler.step()
        trained = {name: layer.weight.detach().clone() for name, layer in pruner.pruner.layers.items()}
        assert all(bool((trained[name][parts["weight"] == 0] == 0).all()) for name, parts in pruner.masks.items())
    assert int((model.fc.weight == 0).sum()) == 32
    with pytest.raises(InvalidInput, match=r"^prune_iterations 3 allows 4 trainings, all of which have begun\.$"):
        pruner.prune_iteration_start()


def test_a_later_rewind_point_brings_back_that_step_and_its_momentum() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = ticket(model, optimizer)
    pruner.compress()
    pruner.prune_iteration_start()
    train(model, optimizer)
    pruner.set_rewind_point()
    weights = copy.deepcopy(model.state_dict())
    momentum = optimizer.state[model.fc.weight]["momentum_buffer"].clone()
    for _ in range(2):  # the second time too: the point is not moved by what follows it
        train(model, optimizer)
        pruner.prune_iteration_start()
        assert torch.equal(model.fc.weight, weights["fc.weight"] * model.fc.weight_mask)
        assert torch.equal(model.bn1.running_var, weights["bn1.running_var"])
        assert torch.equal(optimizer.state[model.fc.weight]["momentum_buffer"], momentum)


def test_rewinding_the_learning_rate_alone_keeps_what_was_learnt() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    pruner = ticket(model, optimizer, lr_scheduler=scheduler, rewind="lr")
    pruner.compress()
    pruner.prune_iteration_start()
    train(model, optimizer)
    scheduler.step()
    learnt = copy.deepcopy(model.state_dict())
    pruner.prune_iteration_start()
    assert torch.equal(model.conv1.weight, learnt["conv1.weight"] * model.conv1.weight_mask)
    assert torch.equal(model.bn1.running_mean, learnt["bn1.running_mean"])
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_tickets_of_whole_channels_are_judged_by_the_trained_network() -> None:
    model = network()
    start = model.conv2.bias.detach().clone()
    optimizer = sgd(model)
    config = [{"prune_iterations": 1, "sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = LotteryTicketPruner(model, config, optimizer, pruning_algorithm="taylorfo", calibration=data(2))
    pruner.compress()
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        assert torch.equal(model.conv2.bias, start * model.conv2.bias_mask)
        train(model, optimizer)
    assert int((model.conv2.bias_mask == 0).sum()) == 5


def test_tickets_that_cannot_work_are_refused() -> None:
    model = network()
    entries = [
        {"prune_iterations": 3, "sparsity": 0.5, "op_types": ["Conv2d"]},
        {"prune_iterations": 2, "sparsity": 0.5, "op_names": ["fc"]},
    ]
    with pytest.raises(InvalidInput, match=r"^config_list\[1\]\.prune_iterations 2 differs from another entry's 3; give"):
        LotteryTicketPruner(model, entries, sgd(model))
    with pytest.raises(InvalidInput, match=r'^rewind \'none\' must be "weights" or "lr"\.$'):
        ticket(model, sgd(model), rewind="none")
    with pytest.raises(InvalidInput, match=r"^calibration is missing: the trained weights must be judged before"):
        ticket(model, sgd(model), pruning_algorithm="apoz")
