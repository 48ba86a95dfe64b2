"""Budgets of milliseconds: what networks of any widths take on the job's workers, measured once per job.

Layers and some whole networks are timed where trials run, one input at a time; which channels a plan keeps is no matter. From
these times, which the job's log keeps, every attempt works out the same costs (``pruners.latency_table``): first for networks
of all sizes, then fitted anew to the dense one and plans at the budget, since that is where a search stays. In the end the
best plans are timed themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import ParamSpec, TypeVar, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError
from torch import Tensor, fx, nn

from pruners.cost import LATENCY, CostModel
from pruners.graph.check import traced
from pruners.graph.groups import Coupling
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.latency import Latency, measure_latency
from pruners.latency_table import LatencyTable, Measure
from searchers.base import Given, Proposal
from workers.device import device_of, moved, prepare
from workers.evaluator import Evaluator
from workers.inspection import describe_groups
from workers.log import JobLog
from workers.plan import make_space
from workers.spec import JobSpec, Resources

_AT_THE_BUDGET = 8  # networks: their mean is what the fit goes through, and each is off by a few percent
_DRAWN = (0.3, 1.0)  # preferences of their groups before they are projected: unlike, as a search's plans are
_AT_ONCE, _MOST = 8, 32  # plans that are timed in turns, and in all: about a second each

P = ParamSpec("P")
T = TypeVar("T")

Bytes = NDArray[np.uint8]
"""Of a file that may lie on another node; an array, since Ray shares those between processes."""


class InTime:
    """A job's budget of milliseconds; the times are measured unless the job's log has them.

    Args:
        spec: the job's.
        model: the bytes of the ``.pt2`` file.
        evaluator: of it.
        log: keeps the times.

    Attributes:
        cost: the network's costs with ``pruners.cost.LATENCY`` among them.

    Raises:
        InvalidInput: the budget is out of reach.
    """

    def __init__(self, spec: JobSpec, model: Bytes, evaluator: Evaluator, log: JobLog) -> None:
        self._spec = spec
        self._model = model
        self._evaluator = evaluator
        self._log = log
        known = log.times()
        times = on_a_worker(spec.resources, measured_times, model, spec) if known is None else known
        self.cost = latency_cost(evaluator.dense, evaluator.coupling, spec, recalled(times))
        if known is None:
            given = [entry.proposal for entry in log.record() if isinstance(entry, Given)]
            foretold = {proposal.id: self.cost(LATENCY, proposal.widths) for proposal in given}
            log.timed(times, evaluator.space(self.cost).budget.limit, foretold)

    def best(
        self, leaders: Sequence[Proposal], beside: Callable[[Proposal], Sequence[Proposal]]
    ) -> tuple[Proposal, Sequence[Proposal], list[Latency]]:
        """The first plan that keeps the budget when it is timed, what is kept beside it, and what they all take.

        What is foretold is a few percent off. If none of the first ``_MOST`` keeps it, the quickest of them has to do. A plan
        that others are kept beside has to keep the budget once more, when it is timed in turns with those: latencies of
        different times do not compare.

        Args:
            leaders: plans, one at least, that were foretold to keep it, the best first.
            beside: what is kept beside a plan if it wins.

        Returns:
            Likewise, and the latencies of the dense network, the plan, and those beside it, measured in turns.
        """
        found: list[tuple[Proposal, list[Latency]]] = []
        leaders = leaders[:_MOST]
        for start in range(0, len(leaders), _AT_ONCE):
            some = leaders[start : start + _AT_ONCE]
            dense, *own = self._timed(some)
            for place, (proposal, latency) in enumerate(zip(some, own, strict=True), start=start + 1):
                found.append((proposal, [dense, latency]))
                if not self._keeps(found[-1][1]):
                    continue
                others, latencies = self._with_others(*found[-1], beside)
                if self._keeps(latencies):
                    said = f"trial {proposal.id}, number {place} by score, keeps {self._allowed(latencies[0]):.4g} ms with"
                    self._log.progress(f"Timed: {said} {latencies[1].median_ms:.4g} ms.")
                    return proposal, others, latencies
        quickest, alone = min(found, key=lambda each: each[1][1].median_ms / each[1][0].median_ms)
        others, latencies = self._with_others(quickest, alone, beside)
        took, allowed = latencies[1].median_ms, self._allowed(latencies[0])
        self._log.progress(f"Timed: none of the best {len(found)} plans keeps {allowed:.4g} ms; the quickest takes {took:.4g}.")
        return quickest, others, latencies

    def _with_others(
        self, proposal: Proposal, alone: list[Latency], beside: Callable[[Proposal], Sequence[Proposal]]
    ) -> tuple[Sequence[Proposal], list[Latency]]:
        """What is kept beside a plan, and latencies of all of them in turns; ``alone`` are the dense network's and its own."""
        others = beside(proposal)
        return others, self._timed([proposal, *others]) if others else alone

    def _keeps(self, latencies: Sequence[Latency]) -> bool:
        """Whether the plan that was timed first, behind the dense network, keeps the budget."""
        return latencies[1].median_ms <= self._allowed(latencies[0])

    def _timed(self, proposals: Sequence[Proposal]) -> list[Latency]:
        """Of the dense network and of these, in turns, where trials run."""
        dense = [group.width for group in self._evaluator.coupling.prunable]
        plans = [dense, *(self._evaluator.channels(proposal.widths) for proposal in proposals)]
        return on_a_worker(self._spec.resources, time_plans, self._model, self._spec.resources, plans)

    def _allowed(self, dense: Latency) -> float:
        """Milliseconds that a plan may take, timed in turns with the dense network."""
        (budget,) = self._spec.budgets
        return float(budget.max) if budget.ratio is None and budget.max else dense.median_ms * float(budget.ratio or 1)


def on_a_worker(resources: Resources, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns in a process that has what a trial has; what it raises is raised here."""
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=3)(work)
    try:
        return cast(T, ray.get(task.remote(*args, **kwargs)))
    except RayTaskError as error:
        raise error.cause from None


def measured_times(model: Bytes, spec: JobSpec) -> list[float]:
    """The milliseconds that ``latency_cost`` asks for, in its order, measured in this process.

    Raises:
        InvalidInput: the budget is out of reach.
    """
    times: list[float] = []

    def measure(networks: Sequence[tuple[nn.Module, Tensor]]) -> Sequence[Latency]:
        found = measure_latency(networks)
        times.extend(latency.median_ms for latency in found)
        return found

    latency_cost(*_network(model, spec.resources), spec, measure)
    return times


def latency_cost(module: fx.GraphModule, coupling: Coupling, spec: JobSpec, measure: Measure) -> CostModel:
    """The network's costs with ``pruners.cost.LATENCY`` among them, for one input.

    Args:
        module: the dense network.
        coupling: its groups.
        spec: says the budget.
        measure: takes the times.

    Raises:
        InvalidInput: the budget is out of reach.
    """
    table = LatencyTable(module, coupling, _example(module), measure)
    roughly = make_space(describe_groups(module, coupling), table.cost(), spec)
    draw = np.random.default_rng(0)
    wishes = [draw.uniform(*_DRAWN, len(roughly.groups)).tolist() for _ in range(_AT_THE_BUDGET)]
    table.calibrate([roughly.dense, *map(roughly.project, wishes)])
    return table.cost()


def recalled(times: Sequence[float]) -> Measure:
    """Times that were measured before, as ``measured_times`` returned them."""
    left = iter(times)
    return lambda networks: [Latency(next(left), 0.0) for _ in networks]


def time_plans(model: Bytes, resources: Resources, plans: Sequence[Sequence[int]]) -> list[Latency]:
    """For one input each, of networks with these channels in their prunable groups, measured in turns in this process."""
    module, coupling = _network(model, resources)
    example, divisors = _example(module), [group.divisor for group in coupling.prunable]
    cuts = [[np.arange(width // divisor) for width, divisor in zip(plan, divisors, strict=True)] for plan in plans]
    return measure_latency([(shrink(module, coupling, keep), example) for keep in cuts])


def _network(model: Bytes, resources: Resources) -> tuple[fx.GraphModule, Coupling]:
    """On the device of this process."""
    prepare(resources)
    module = build_module(read_program(BytesIO(model.data)))
    coupling = traced(module)
    return moved(module, device_of(resources)), coupling


def _example(module: fx.GraphModule) -> Tensor:
    example: Tensor = module.meta["inputs"][0].example(1)
    return example.to(next(module.parameters()).device)
