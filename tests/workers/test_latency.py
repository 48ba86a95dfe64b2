"""Budgets of milliseconds: measured once, the same for every attempt, and kept by the network that comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from pruners.cost import LATENCY, NANOSECONDS
from pruners.errors import InvalidInput
from pruners.graph.check import traced
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.latency import Latency
from searchers.base import Asked, Proposal
from tests.workers.logs import ListLog
from workers import latency
from workers.data import load
from workers.evaluator import Evaluator
from workers.job import run_job
from workers.latency import InTime, latency_cost, on_a_worker, recalled
from workers.spec import JobSpec


def spec(**budget: object) -> JobSpec:
    return JobSpec.model_validate(
        {"budget": {"metric": "latency_ms", **budget}, "searcher": {"name": "random"}, "limits": {"max_trials": 6}}
    )


def clock(networks: Sequence[tuple[nn.Module, Tensor]]) -> list[Latency]:
    """A millisecond for every thousand weights, and one for calling."""
    return [Latency(1 + sum(weight.numel() for weight in module.parameters()) / 1000, 0.0) for module, _ in networks]


@pytest.mark.usefixtures("cluster")
def test_a_job_in_milliseconds_from_start_to_end(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    run_job(spec(ratio=0.9), *files, tmp_path / "1", tmp_path / "networks", log)
    assert log.phases == ["running", "finishing", "succeeded"]
    assert log.limit is not None
    assert log.baseline is not None
    assert log.best is not None
    asked = [entry.proposal for entry in log.entries if isinstance(entry, Asked)]
    assert asked
    foretold = [log.plans[proposal.id].latency_ns for proposal in asked]
    assert all(plan is not None and 0.8 * log.limit < plan <= log.limit for plan in foretold), "the budget is used up"
    assert log.baseline.budget_ratio == 1
    assert log.best.budget_ratio == log.best.latency_ms / log.baseline.latency_ms, "as it was measured"
    assert min(log.baseline.latency_spread_ms, log.best.latency_spread_ms) > 0
    assert any(message.startswith("Timed: ") for message in log.messages)

    again = ListLog(entries=list(log.entries), measured=log.measured)
    run_job(spec(ratio=0.9), *files, tmp_path / "2", tmp_path / "networks", again)
    assert again.limit is None, "nothing is measured a second time"
    assert again.plans == {}, "nor searched: the same plans were asked for again"


@pytest.mark.usefixtures("cluster")
def test_a_budget_that_no_plan_keeps_is_refused_in_milliseconds(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^budget\.max 1e-06 is out of reach: the smallest reachable is \d.* \(of .* ms\)"):
        run_job(spec(max=1e-6), *files, tmp_path / "1", tmp_path / "networks", ListLog())
    with pytest.raises(InvalidInput, match=r"^budget\.max 1000(\.0)? prunes nothing; state less than the dense .* ms"):
        run_job(spec(max=1000), *files, tmp_path / "2", tmp_path / "networks", ListLog())


def test_costs_are_worked_out_again_from_the_times_alone(files: tuple[Path, Path]) -> None:
    module = build_module(read_program(files[0]))
    coupling, times = traced(module), list[float]()

    def measure(networks: Sequence[tuple[nn.Module, Tensor]]) -> Sequence[Latency]:
        found = clock(networks)
        times.extend(each.median_ms for each in found)
        return found

    first = latency_cost(module, coupling, spec(ratio=0.5), measure)
    again = latency_cost(module, coupling, spec(ratio=0.5), recalled(times))
    dense = [group.width for group in coupling.prunable]
    for plan in (dense, [width // 2 for width in dense], [1] * len(dense)):
        assert first(LATENCY, plan) == again(LATENCY, plan)
        assert first("macs", plan) == coupling.cost("macs", plan)
    assert first(LATENCY, dense) / NANOSECONDS == pytest.approx(clock([(module, Tensor())])[0].median_ms, rel=0.05)


def test_the_best_plan_that_keeps_the_budget_when_it_is_timed_wins(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twelve plans, timed eight at once, the tenth is the first that is as quick as it was foretold to be."""
    taken = iter([10.0, *[6.0] * 8, 10.0, 5.5, 4.9, 4.0, 4.0])

    def measured(resources: object, work: object, *given: object) -> object:
        if work is latency.measured_times:
            return times
        plans = given[2]
        assert isinstance(plans, list)
        return [Latency(next(taken), 0.1) for _ in plans]

    module, log = build_module(read_program(files[0])), ListLog()
    times: list[float] = []

    def record(networks: Sequence[tuple[nn.Module, Tensor]]) -> Sequence[Latency]:
        times.extend(each.median_ms for each in clock(networks))
        return clock(networks)

    asked = spec(ratio=0.5)
    latency_cost(module, traced(module), asked, record)
    monkeypatch.setattr(latency, "on_a_worker", measured)
    evaluator = Evaluator(files[0], load(files[1], 0), asked)
    in_time = InTime(asked, np.fromfile(files[0], np.uint8), evaluator, log)
    dense = tuple(group.width for group in evaluator.coupling.prunable)
    plans = [Proposal(number, dense) for number in range(12)]
    winner, others, (whole, own) = in_time.best(plans, lambda winner: [])
    assert (winner.id, others, whole.median_ms, own.median_ms) == (9, [], 10.0, 4.9)
    taken = iter([10.0, *[6.0] * 3, 5.1])
    winner, _, (_, own) = in_time.best(plans[:4], lambda winner: [])
    assert (winner.id, own.median_ms) == (3, 5.1)
    assert log.messages[-1] == "Timed: none of the best 4 plans keeps 5 ms; the quickest takes 5.1."
    # Trial 1 keeps it among the leaders, and no longer where it takes turns with what is kept beside it.
    taken = iter([10.0, 6.0, 4.9, 4.8, *[10.0, 5.1, 3.0], *[10.2, 5.0, 3.1]])
    winner, others, latencies = in_time.best(plans[:3], lambda winner: [plans[11]])
    assert (winner.id, [other.id for other in others]) == (2, [11])
    assert [each.median_ms for each in latencies] == [10.2, 5.0, 3.1], "all of one timing"


@pytest.mark.usefixtures("cluster")
def test_what_a_worker_raises_is_raised_here() -> None:
    def fail() -> None:
        raise InvalidInput("budget", 3, "is too much")

    with pytest.raises(InvalidInput, match="budget 3 is too much"):
        on_a_worker(spec(ratio=0.5).resources, fail)
