"""The schedules: exact sparsities at every moment, ADMM's three steps, what a lottery ticket goes back to."""

from __future__ import annotations

import copy
import io
import itertools
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruners import ADMMPruner, AGPPruner, LinearPruner, LotteryTicketPruner
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from pruners.schedules.base import ONE_SHOT

EVERY = ["default"]


class Net(nn.Module):
    """Two convolutions with BatchNorm, whose channels are added up, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 10, 3, padding=1)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(x + self.conv2(x))
        return self.fc(x.mean((2, 3)))


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def data(count: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Noisy images of level ground, stripes either way, or a chequerboard; which, is to be learnt."""
    generator = torch.Generator().manual_seed(1)
    sign = torch.tensor([1.0, -1.0]).repeat(3)
    patterns = torch.stack([torch.ones(6, 6), sign.expand(6, 6), sign.view(6, 1).expand(6, 6), sign * sign.view(6, 1)])
    labels = torch.randint(4, (count, 16), generator=generator)
    images = patterns[labels].unsqueeze(2) + torch.randn(count, 16, 1, 6, 6, generator=generator)
    return list(zip(images, labels, strict=True))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    epoch: int = 0,
) -> None:
    for images, labels in data():
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def masked(pruner: object, name: str) -> int:
    return int((pruner.masks[name]["weight"] == 0).sum())  # type: ignore[attr-defined]


# ---- AGP and Linear


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


def test_a_step_schedule_moves_behind_the_optimisers_steps_and_goes_on_from_a_saved_network() -> None:
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

    again = network(seed=1)
    optimizer = sgd(again)
    resumed = AGPPruner(again, config, optimizer, unit="step")
    resumed.compress()
    again.load_state_dict(model.state_dict())
    resumed.step = pruner.step
    train(again, optimizer)
    assert torch.equal(again.fc.weight == 0, model.fc.weight == 0)


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


# ---- ADMM


@pytest.mark.parametrize("base", ["level", "l1", "l2"])
def test_admm_does_what_its_three_lines_say(base: str) -> None:
    """Each iteration against the formulas, Z's sparsity exact, and nothing shared between W, Z and U."""
    model = network()
    config = [{"sparsity": 0.33, "op_types": ["Conv2d"]}, {"sparsity": 0.6, "op_names": ["fc"]}]
    sparsity = {"conv1": 0.33, "conv2": 0.33, "fc": 0.6}
    old: dict[str, tuple[Tensor, Tensor]] = {}

    def check(iteration: int, residuals: object) -> None:
        assert iteration == len(pruner.history)
        for name, layer in pruner.pruner.layers.items():
            w, z, u = layer.weight.detach(), pruner.Z[name], pruner.U[name]
            assert len({tensor.data_ptr() for tensor in (w, z, u)}) == 3
            before = old[name][1] if name in old else torch.zeros_like(w)
            pruned = (w + before).flatten() if base == "level" else (w + before).flatten(1)
            size = pruned.abs() if base == "level" else pruned.norm(p=1 if base == "l1" else 2, dim=1)
            gone = size.argsort()[: math.floor(share(sparsity[name], len(size)))]
            pruned[gone] = 0
            assert torch.equal(z, pruned.view_as(z))
            assert int((z == 0).sum()) == len(gone) * (w.numel() // len(size))
            assert torch.equal(u, before + w - z)
            assert pruner.history[-1][name] == pytest.approx(float((w - z).norm() / w.norm()))
            old[name] = (z.clone(), u.clone())
        assert not pruner.masks  # until the end nothing is cut

    pruner = ADMMPruner(model, config, train, 3, 1, rho=1e-2, base_algo=base, on_iteration=check)
    assert pruner.compress() is model
    assert len(pruner.history) == 3
    assert masked(pruner, "fc") == (24 if base == "level" else 20)
    assert masked(pruner, "conv2") == (297 if base == "level" else 270)


def test_the_penaltys_gradient_is_rho_times_w_minus_z_plus_u_exactly() -> None:
    """Seen by the optimiser beside the loss's gradient, in every step but before its own weight decay."""
    model = network()
    rho = 0.07
    steps: list[dict[str, Tensor]] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            for name, weight in {"conv1": model.conv1.weight, "fc": model.fc.weight}.items():
                w = weight.detach().clone().requires_grad_()
                (rho / 2 * (w - pruner.Z[name] + pruner.U[name]).square().sum()).backward()
                assert torch.equal(weight.grad, losses[name] + w.grad)
            steps.append({name: u.clone() for name, u in pruner.U.items()})
            super().step(closure)

    losses: dict[str, Tensor] = {}

    def trainer(model: Net, optimizer: torch.optim.Optimizer, criterion: nn.Module, epoch: int) -> None:
        for images, labels in data(2):
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            losses.update({"conv1": model.conv1.weight.grad.clone(), "fc": model.fc.weight.grad.clone()})
            optimizer.step()

    config = [{"sparsity": 0.5, "op_names": ["conv1", "fc"]}]
    optimizer = Watching(model.parameters(), lr=0.1, weight_decay=0.1)
    pruner = ADMMPruner(model, config, trainer, 2, 2, rho=rho, base_algo="level", optimizer=optimizer)
    pruner.compress()
    assert len(steps) == 8
    assert not steps[0]["fc"].any()
    assert steps[-1]["fc"].any()
    assert not optimizer._optimizer_step_pre_hooks  # whoever trains on is not pulled any more


def test_admms_residual_falls_and_cutting_then_costs_less_than_cutting_at_once() -> None:
    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            return sum(float(F.cross_entropy(model.eval()(images), labels)) for images, labels in data())

    model = network()
    optimizer = sgd(model)
    for _ in range(20):
        train(model, optimizer)
    config = [{"sparsity": 0.8, "op_types": ["Conv2d"]}]
    once = copy.deepcopy(model)
    ONE_SHOT["level"](once, config).compress()
    pruner = ADMMPruner(model, config, train, 12, 3, rho=0.3, base_algo="level", optimizer=sgd(model))
    pruner.compress()
    worst = [max(residuals.values()) for residuals in pruner.history]
    later = [sum(worst[i : i + 3]) for i in (0, 3, 6, 9)]  # by threes: single iterations of so small a problem are noisy
    assert later == sorted(later, reverse=True)
    assert worst[-1] < worst[0] / 4
    assert loss(model) < loss(once)


def test_a_run_that_stops_inside_goes_on_bit_for_bit() -> None:
    config = [{"sparsity": 0.5, "op_types": EVERY}]
    whole = network()
    uninterrupted = ADMMPruner(whole, config, train, 5, 2, rho=1e-2, base_algo="level")
    uninterrupted.compress()

    class Crash(Exception): ...

    saved = io.BytesIO()

    def crash(iteration: int, _: object) -> None:
        if iteration == 2:
            torch.save(first.state_dict(), saved)
        if iteration == 3:
            raise Crash

    first = ADMMPruner(network(), config, train, 5, 2, rho=1e-2, base_algo="level", on_iteration=crash)
    with pytest.raises(Crash):
        first.compress()
    model = network(seed=1)
    second = ADMMPruner(model, config, train, 5, 2, rho=1e-2, base_algo="level")
    saved.seek(0)
    second.load_state_dict(torch.load(saved))
    assert len(second.history) == 2
    second.compress()
    assert second.history == uninterrupted.history
    assert all(torch.equal(second.Z[name], uninterrupted.Z[name]) for name in second.Z)
    assert all(torch.equal(second.U[name], uninterrupted.U[name]) for name in second.U)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_admm_projects_coupled_layers_together() -> None:
    model, example = network(), torch.zeros(2, 1, 6, 6)
    config = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = ADMMPruner(model, config, train, 2, 1, base_algo="l2", dependency_aware=True, dummy_input=example)
    pruner.compress()
    silent = [(pruner.Z[name].flatten(1) == 0).all(1) for name in ("conv1", "conv2")]
    assert torch.equal(*silent)
    assert int(silent[0].sum()) == 5
    assert pruner.compact(example).conv2.out_channels == 5


def test_admm_refuses_what_cannot_work() -> None:
    config = [{"sparsity": 0.5, "op_names": ["fc"]}]
    with pytest.raises(InvalidInput, match=r"^base_algo 'taylorfo' is no pruner .*; use one of level, l1, l2\.$"):
        ADMMPruner(network(), config, train, base_algo="taylorfo")
    with pytest.raises(InvalidInput, match=r"^num_iterations 0 must be 1 or more\.$"):
        ADMMPruner(network(), config, train, num_iterations=0)
    with pytest.raises(InvalidInput, match=r"^rho 0 must be above 0"):
        ADMMPruner(network(), config, train, rho=0)
    with pytest.raises(InvalidInput, match=r"^trainer never called optimizer\.step\(\)"):
        ADMMPruner(network(), config, lambda model, optimizer, criterion, epoch: train(model, sgd(model))).compress()
    frozen = network()
    frozen.fc.requires_grad_(False)
    with pytest.raises(InvalidInput, match=r"^config_list 'fc' has a frozen weight"):
        ADMMPruner(frozen, config, train)
    pruner = ADMMPruner(network(), config, train, 1, 1)
    pruner.compress()
    with pytest.raises(InvalidInput, match=r"^state \['fc'\] is not of the layers \['conv1'\]"):
        ADMMPruner(network(), [{"sparsity": 0.5, "op_names": ["conv1"]}], train).load_state_dict(pruner.state_dict())


# ---- Lottery Ticket


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


# ---- The calls of NNI's pruner page


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


def test_the_snippets_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "pruners.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", page.partition("## Schedules")[2], re.MULTILINE | re.DOTALL)

    def new() -> tuple[Net, torch.optim.Optimizer]:
        model = network()
        return model, sgd(model)

    names: dict[str, object] = {"torch": torch, "new": new, "train": train, "data": data()}
    for snippet in snippets:
        exec(snippet, names)  # noqa: S102  (the document's own code)
    documented = set(re.findall(r"\b\w+Pruner\b", "".join(snippets)))
    assert documented == {kind.__name__ for kind in (ADMMPruner, AGPPruner, LinearPruner, LotteryTicketPruner)}
