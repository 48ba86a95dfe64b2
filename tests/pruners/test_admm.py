"""ADMM: its three steps, the penalty's gradient, residuals, and going on where a run stopped."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruners import ADMMPruner
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from pruners.schedules.base import ONE_SHOT
from tests.pruners.training import EVERY, Net, data, masked, network, sgd, train


@pytest.mark.parametrize(("base", "dual_step"), [("level", 1.0), ("l1", 0.3), ("l2", 1.0)])
def test_admm_does_what_its_three_lines_say(base: str, dual_step: float) -> None:
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
            assert torch.equal(u, before + dual_step * (w - z))
            assert pruner.history[-1][name] == pytest.approx(float((w - z).norm() / w.norm()))
            old[name] = (z.clone(), u.clone())
        assert not pruner.masks  # until the end nothing is cut

    pruner = ADMMPruner(model, config, train, 3, 1, rho=1e-2, base_algo=base, dual_step=dual_step, on_iteration=check)
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
