"""Schedules as people train: stopped and gone on with, in mixed precision, in several processes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from pruners import ADMMPruner, AGPPruner, LinearPruner, LotteryTicketPruner
from pruners.errors import InvalidInput
from pruners.schedules.base import Schedule
from tests.pruners.training import EVERY, data, masked, network, sgd, train

Train = Callable[..., None]
COUNTS = {"conv1": 45, "conv2": 450, "fc": 20}  # half of the weights


def gradual(kind: type, unit: str = "epoch", **more: Any) -> Callable[[nn.Module, torch.optim.Optimizer], Schedule]:
    end = {"epoch": 5, "step": 29}[unit]  # 6 steps in an epoch
    config = [{"final_sparsity": 0.5, f"end_{unit}": end, "frequency": 1 if unit == "epoch" else 4, "op_types": EVERY}]
    return lambda model, optimizer: kind(model, config, optimizer, unit=unit, **more)


def ticket(model: nn.Module, optimizer: torch.optim.Optimizer) -> LotteryTicketPruner:
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    config = [{"prune_iterations": 2, "sparsity": 0.5, "op_types": EVERY}]
    return LotteryTicketPruner(model, config, optimizer, scheduler)


def epochs(pruner: Schedule, train: Train, begun: int = 0) -> Iterator[int]:
    """Trains to the end, 5 epochs of a gradual schedule or 2 in each round of a ticket; yields behind each of them."""
    if not isinstance(pruner, LotteryTicketPruner):
        for epoch in range(begun, 5):
            pruner.update_epoch(epoch)
            train(pruner.model, pruner.optimizer)
            yield epoch + 1
        return
    left = range(begun % 2, 2) if begun % 2 else range(0)
    for number in (None, *pruner.get_prune_iterations()):
        if number is not None:
            pruner.prune_iteration_start()
            left = range(2)
        for _ in left:
            train(pruner.model, pruner.optimizer)
            pruner._scheduler.step()
            begun += 1
            yield begun


@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.parametrize(
    "make", [gradual(AGPPruner), gradual(AGPPruner, "step"), gradual(LinearPruner, pruning_algorithm="l1"), ticket]
)
def test_a_run_that_stops_inside_goes_on_bit_for_bit(
    make: Callable[[nn.Module, torch.optim.Optimizer], Schedule], stop: int
) -> None:
    whole = network()
    pruner = make(whole, sgd(whole))
    pruner.compress()
    saved = io.BytesIO()
    for epoch in epochs(pruner, train):
        if epoch == stop:
            torch.save(pruner.state_dict(), saved)
    again = network(seed=1)
    resumed = make(again, sgd(again))
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved))
    for _ in epochs(resumed, train, begun=stop):
        pass
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(resumed.masks["fc"]["weight"], pruner.masks["fc"]["weight"])
    if not isinstance(pruner, LinearPruner):  # which masks whole channels here
        assert {name: masked(resumed, name) for name in COUNTS} == COUNTS


def test_a_state_of_other_layers_is_refused() -> None:
    config = [{"final_sparsity": 0.5, "end_epoch": 5, "op_names": ["fc"]}]
    other = AGPPruner(network(), config)
    with pytest.raises(InvalidInput, match=r"^state \['fc'\] is not of the layers \['conv1', 'conv2', 'fc'\]; use the same"):
        gradual(AGPPruner)(network(), sgd(network())).load_state_dict(other.state_dict())


def run_all(train: Train) -> dict[str, Schedule]:
    """Every schedule on a network of its own, trained to its end."""
    makes: dict[str, Callable[[nn.Module, torch.optim.Optimizer], Schedule]] = {
        "agp": gradual(AGPPruner),
        "agp by steps": gradual(AGPPruner, "step"),
        "linear by gradients": gradual(LinearPruner, pruning_algorithm="taylorfo", statistics_batch_num=3),
        "lottery ticket": ticket,
    }
    pruners: dict[str, Schedule] = {}
    for name, make in makes.items():
        model = network()
        pruners[name] = make(model, sgd(model))
        pruners[name].compress()
        for _ in epochs(pruners[name], train):
            pass
    config, model = [{"sparsity": 0.5, "op_types": EVERY}], network()
    admm = ADMMPruner(model, config, train, 3, 2, rho=0.2, base_algo="level", optimizer=sgd(model))
    admm.compress()
    train(model, admm.optimizer)
    return {**pruners, "admm": admm}


def check(pruners: dict[str, Schedule]) -> None:
    """Exact counts, and masked weights zero."""
    for name, pruner in pruners.items():
        assert {layer: masked(pruner, layer) for layer in COUNTS} == COUNTS, name
        for layer in COUNTS:
            weight = pruner.model.get_submodule(layer).get_parameter("weight")
            assert bool((weight[pruner.masks[layer]["weight"] == 0] == 0).all()), name
            assert bool(weight.isfinite().all()), name
    residuals = [sum(each.values()) for each in pruners["admm"].history]  # type: ignore[attr-defined]
    assert residuals == sorted(residuals, reverse=True)


def train_in_bfloat16(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    epoch: int = 0,
) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for images, labels in data():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(images)
        assert outputs.dtype == torch.bfloat16
        scaler.scale(criterion(outputs.float(), labels)).backward()
        scaler.step(optimizer)
        scaler.update()


def test_every_schedule_trains_in_mixed_precision() -> None:
    pruners = run_all(train_in_bfloat16)
    check(pruners)
    assert all(parameter.dtype == torch.float32 for pruner in pruners.values() for parameter in pruner.model.parameters())


class Parallel:
    """One epoch on every second image, gradients averaged over the processes."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._wrapped: dict[nn.Module, DistributedDataParallel] = {}

    def __call__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        epoch: int = 0,
    ) -> None:
        if model not in self._wrapped:
            self._wrapped[model] = DistributedDataParallel(model)
        for images, labels in data():
            optimizer.zero_grad()
            criterion(self._wrapped[model](images[self._rank :: 2]), labels[self._rank :: 2]).backward()
            optimizer.step()


def _on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    pruners = run_all(Parallel(rank))
    check(pruners)
    found = {name: {layer: pruner.masks[layer]["weight"] for layer in COUNTS} for name, pruner in pruners.items()}
    weights = {name: pruner.model.state_dict()["conv1.weight"] for name, pruner in pruners.items()}
    torch.save({"masks": found, "weights": weights}, f"{folder}/{rank}.pth")
    distributed.destroy_process_group()


def test_every_schedule_masks_alike_on_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_on_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    for name, layers in first["masks"].items():
        assert all(torch.equal(mask, second["masks"][name][layer]) for layer, mask in layers.items()), name
        assert torch.equal(first["weights"][name], second["weights"][name]), name
