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


@pytest.mark.parametrize(("base", "dual_step", "growth"), [("level", 1.0, 1.0), ("l1", 0.3, 2.0), ("l2", None, 1.0)])
def test_admm_does_what_its_lines_say(base: str, dual_step: float | None, growth: float) -> None:
    """Each iteration against the formulas, Z's sparsity exact, and nothing shared between W, Z and U."""
    model = network()
    config = [{"sparsity": 0.33, "op_types": ["Conv2d"]}, {"sparsity": 0.6, "op_names": ["fc"]}]
    sparsity = {"conv1": 0.33, "conv2": 0.33, "fc": 0.6}
    first = {name: model.get_submodule(name).weight.detach().clone() for name in sparsity}
    old = {name: (w, torch.zeros_like(w)) for name, w in first.items()}  # Z and U
    started = [torch.cat([w.flatten() for w in first.values()])]  # W by iteration, all layers in one
    distances: list[tuple[Tensor, Tensor]] = []

    def step(w: Tensor) -> float:
        target = torch.cat([(z - u).flatten() for z, u in old.values()])
        distances.append((started[-1] - target, w - target))
        started.append(w)
        if dual_step is not None or len(distances) < 2:
            return dual_step or 0.0
        before, behind = (now - last for now, last in zip(distances[-1], distances[-2], strict=True))
        root = math.sqrt(abs(float(behind @ before / (before @ before))))
        return (1 - root) / (1 + root)

    def check(iteration: int, residuals: object) -> None:
        assert iteration == len(pruner.history)
        assert pruner.rho == pytest.approx(1e-2 * growth**iteration)
        now = {name: layer.weight.detach().clone() for name, layer in pruner.pruner.layers.items()}
        gamma = step(torch.cat([w.flatten() for w in now.values()]))
        for name, layer in pruner.pruner.layers.items():
            w, z, u = layer.weight.detach(), pruner.Z[name], pruner.U[name]
            assert len({tensor.data_ptr() for tensor in (w, z, u)}) == 3
            before = old[name][1]
            pruned = (w + before).flatten() if base == "level" else (w + before).flatten(1)
            size = pruned.abs() if base == "level" else pruned.norm(p=1 if base == "l1" else 2, dim=1)
            gone = size.argsort()[: math.floor(share(sparsity[name], len(size)))]
            pruned[gone] = 0
            assert torch.equal(z, pruned.view_as(z))
            assert int((z == 0).sum()) == len(gone) * (w.numel() // len(size))
            torch.testing.assert_close(u, (before + gamma * (w - z)) / growth)
            assert pruner.history[-1][name] == pytest.approx(float((w - z).norm() / w.norm()))
            old[name] = (z.clone(), u.clone())
        assert not pruner.masks  # until the end nothing is cut

    options = {"base_algo": base, "dual_step": dual_step, "rho_growth": growth}
    pruner = ADMMPruner(model, config, train, 3, 1, rho=1e-2, on_iteration=check, **options)
    assert pruner.compress() is model
    assert len(pruner.history) == 3
    assert pruner.U["fc"].any()
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
    pruner = ADMMPruner(model, config, trainer, 2, 2, rho=rho, base_algo="level", optimizer=optimizer, dual_step=1.0)
    pruner.compress()
    assert len(steps) == 8
    assert not steps[0]["fc"].any()
    assert steps[-1]["fc"].any()
    assert not optimizer._optimizer_step_pre_hooks  # whoever trains on is not pulled any more


@pytest.mark.parametrize("rho", [0.3, 1.0])
def test_the_residual_falls_with_every_iteration_where_the_papers_dual_step_swings(rho: float) -> None:
    """On least squares, whose one minimum the cut weights leave unwillingly; ρ decides how far W gets in an iteration."""

    def residuals(dual_step: float | None) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        x, w = torch.randn(200, 16, generator=generator), torch.randn(8, 16, generator=generator) / 3
        model = nn.Sequential(nn.Linear(16, 8, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(w)

        def trainer(model: nn.Module, optimizer: torch.optim.Optimizer, criterion: nn.Module, epoch: int) -> None:
            for _ in range(20):
                optimizer.zero_grad()
                F.mse_loss(model(x), x @ w.T).backward()
                optimizer.step()

        config = [{"sparsity": 0.5, "op_types": ["Linear"]}]
        options = {"rho": rho, "base_algo": "level", "optimizer": torch.optim.SGD(model.parameters(), lr=0.05)}
        pruner = ADMMPruner(model, config, trainer, 12, 1, dual_step=dual_step, **options)
        pruner.compress()
        return [residual for (residual,) in map(dict.values, pruner.history)]

    found, swinging = residuals(None), residuals(1.0)
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] / 4
    assert swinging != sorted(swinging, reverse=True)


def test_cutting_after_admm_costs_less_than_cutting_at_once() -> None:
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
    pruner = ADMMPruner(model, config, train, 8, 3, rho=0.05, rho_growth=1.5, base_algo="level", optimizer=sgd(model))
    pruner.compress()
    assert loss(model) < loss(once)


def test_a_run_that_stops_inside_goes_on_bit_for_bit() -> None:
    config = [{"sparsity": 0.5, "op_types": EVERY}]
    whole = network()
    options = {"rho": 1e-2, "rho_growth": 1.5, "base_algo": "level"}
    uninterrupted = ADMMPruner(whole, config, train, 5, 2, **options)
    uninterrupted.compress()

    class Crash(Exception): ...

    saved = io.BytesIO()

    def crash(iteration: int, _: object) -> None:
        if iteration == 2:
            torch.save(first.state_dict(), saved)
        if iteration == 3:
            raise Crash

    first = ADMMPruner(network(), config, train, 5, 2, on_iteration=crash, **options)
    with pytest.raises(Crash):
        first.compress()
    model = network(seed=1)
    second = ADMMPruner(model, config, train, 5, 2, **options)
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
    with pytest.raises(InvalidInput, match=r"^rho_growth 0\.5 must be 1 or more"):
        ADMMPruner(network(), config, train, rho_growth=0.5)
    with pytest.raises(InvalidInput, match=r"^dual_step 1\.5 must be above 0 and at most 1"):
        ADMMPruner(network(), config, train, dual_step=1.5)
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
