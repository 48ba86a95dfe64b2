"""What a trial does: choose channels (or train by a schedule) ▸ shrink ▸ recover ▸ evaluate.

It starts from the dense network or from what another trial made of it, and recovers as the job says: least squares, some steps
of training, new BatchNorm statistics. Needs no Ray.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, fx

from pruners.calibration import calibrate
from pruners.cost import METRICS, CostModel
from pruners.criteria.base import CRITERIA, Calibrated, Criterion
from pruners.criteria.l2_filter import L2Filter
from pruners.graph.check import traced
from pruners.graph.groups import Coupling, Indices
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.importance import Scores, choose, group_scores, watched
from pruners.masking import remove_masks
from pruners.recovery.least_squares import Moments, input_moments, reconstruct
from searchers.base import Outcome, Training
from searchers.space import SearchSpace
from workers.constraint import drop_bound
from workers.data import Split, Splits
from workers.device import CPU, moved
from workers.features import Inputs, kept_inputs
from workers.inspection import describe_groups
from workers.log import Plan
from workers.passes import Passes, Race
from workers.plan import check_schedule, check_scored, make_space, ranks_globally
from workers.pruned import Pruned, State
from workers.quality import Quality
from workers.refusal import refusal
from workers.schedules.base import SCHEDULES, Schedule, Task
from workers.spec import JobSpec
from workers.teacher import Teacher
from workers.training import Trainer, short_tune

_RECONSTRUCTION_IMAGES = 256  # as many as recalibration takes; each gives several rows to every weight of a filter
_BATCH = 64  # several batches of a few hundred images, so that averages over batches say something


@dataclass(frozen=True)
class Findings:
    """What images and weights say about a network, once for all its cuts.

    Attributes:
        scores: how important its channels are; none where a schedule decides.
        moments: of its layers' inputs, if the job wants least squares.
    """

    scores: list[Scores]
    moments: Moments | None


@dataclass(frozen=True)
class _Source:
    """A network that trials start from, with its groups and what they need to know about it."""

    pruned: Pruned
    coupling: Coupling
    found: Findings


class Evaluator:
    """Evaluates pruning plans of one network on one data set.

    Args:
        model: the ``.pt2`` file, or a stream of its bytes.
        data: the job's splits.
        spec: names the criterion or the schedule, and the recovery.
        found: about the dense network by another process of the job; ``None``: it is found out here.

    Attributes:
        schedule: what trains and prunes at once, if the job's pruner does.
        dense: the network itself.
        coupling: its groups.
        passes: over the job's images.

    Raises:
        InvalidInput: parameters that the pruner does not take, or a group that it cannot score.
    """

    def __init__(self, model: Path | BinaryIO, data: Splits, spec: JobSpec, found: Findings | None = None) -> None:
        self._data = data
        self._spec = spec
        self.schedule = make_schedule(spec)
        self.dense: fx.GraphModule = build_module(read_program(model))
        self.coupling = traced(self.dense)
        images = spec.recovery.batchnorm_images
        self.passes = Passes(self.dense, data, images, task=spec.task, resources=spec.resources)
        whole = Pruned(self.dense, [np.arange(len(group.classes)) for group in self.coupling.prunable])
        if self.schedule is None:
            check_scored(describe_groups(self.dense, self.coupling), spec)
        self._dense = _Source(whole, self.coupling, found or self._find(whole.network, self.coupling))
        self._latest = self._dense  # the source that was used last: trials of one parent come together

    @property
    def found(self) -> Findings:
        """About the dense network."""
        return self._dense.found

    def space(self, cost: CostModel | None = None) -> SearchSpace:
        """What the job searches over, by the network's own costs or by ``cost``, which holds more of them."""
        scores = [each.tolist() for each in self.found.scores] if ranks_globally(self._spec) else None
        return make_space(describe_groups(self.dense, self.coupling), cost or self.coupling.cost, self._spec, scores)

    def plan(self, widths: Sequence[int]) -> Plan:
        """What a proposal means, layer by layer and in costs."""
        return self._plan(self.coupling.layer_widths(widths), widths)

    def channels(self, widths: Sequence[int]) -> Sequence[int]:
        """The channels that a proposal keeps of each prunable group."""
        return widths

    def _plan(self, layers: Mapping[str, tuple[int, int]], channels: Sequence[int]) -> Plan:
        return Plan(
            widths={layer: kept for layer, (kept, _) in layers.items()},
            sparsity={layer: 1 - kept / dense for layer, (kept, dense) in layers.items()},
            **{metric: self.coupling.cost(metric, channels) for metric in METRICS},
        )

    def evaluate(self, widths: Sequence[int]) -> Outcome:
        """The plan's score (−divergence) and metric on the search images; whatever goes wrong is the plan's own failure.

        Where the job has a constraint, also the bound of what the metric dropped by; see ``Outcome``.
        """
        return self.evaluate_keeping(widths)[0]

    def evaluate_keeping(
        self,
        widths: Sequence[int],
        start: Pruned | None = None,
        training: Training | None = None,
        report: Callable[[str], None] = lambda _: None,
        race: Race | None = None,
    ) -> tuple[Outcome, Pruned | None]:
        """The same, with the network that was judged; for the arguments see ``prune``.

        In a race it may see some of the images alone. Then the score is an estimate, and there is no metric.
        """
        try:
            pruned = self.prune(widths, start, training, report)
            quality = self.quality(pruned.network, self._data.search, race)
        except (RuntimeError, ValueError) as error:
            return Outcome(None, error=f"{type(error).__name__}: {error}".splitlines()[0]), None
        if not math.isfinite(quality.divergence):
            return Outcome(None, error="The pruned network's outputs are not finite."), None
        if not math.isfinite(quality.metric):
            return Outcome(None, error=f"The {self.passes.objective.metric.title} is not finite."), None
        if len(quality.losses) < len(self._data.search):
            return Outcome(-quality.divergence), pruned
        drop = None
        if self._spec.constraint is not None and quality.drops is not None:
            drop = drop_bound(quality.drops, len(self._data.test))
        return Outcome(-quality.divergence, quality.metric, drop=drop), replace(pruned, losses=quality.losses)

    def prune(
        self,
        widths: Sequence[int],
        start: Pruned | None = None,
        training: Training | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> Pruned:
        """A network physically shrunk to these widths, trained as the job says, its BatchNorm recalibrated.

        Args:
            widths: of the dense network's groups.
            start: what is cut further; ``None``: the dense network.
            training: what trains ``start`` for the cut, and the rest after it; ``None``: the job's own schedule, if it has one.
            report: hears of every epoch of a schedule.

        Raises:
            ValueError: widths that ``start`` does not have any more.
        """
        source = self._dense if start is None else self._from(start)
        for group, width in zip(source.coupling.prunable, widths, strict=True):
            if width > group.width:
                raise ValueError(f"{group.name} has {group.width} channels left and cannot keep {width}")
        schedule = self.schedule
        if training is not None:
            schedule = None if training.schedule is None else parse_schedule(training.schedule, training.params)
        module, coupling, steps = source.pruned.network, source.coupling, source.pruned.steps
        if schedule is None:
            keep = choose(coupling, source.found.scores, widths)
        else:
            module, steps = self._trained(schedule, source, widths, report)
            # Channels that the schedule masked are zero, so they go first; where it masked fewer, the weakest do.
            keep = choose(coupling, group_scores(module, coupling, L2Filter()), widths)
        small = shrink(module, coupling, keep)
        if schedule is None and source.found.moments is not None:
            reconstruct(small, module, coupling, keep, source.found.moments)
        kept = [had[stay] for had, stay in zip(source.pruned.keep, keep, strict=True)]
        if self._spec.recovery.short_steps or training is not None:  # most trials train nothing, and need no optimiser
            trainer = self.trainer(Pruned(small, kept, steps))
            more = self._spec.recovery.short_steps + (0 if training is None else training.retrain * trainer.steps)
            if more:
                short_tune(trainer, more)
            steps = trainer.done
        self.recalibrate(small)
        return Pruned(small, kept, steps)

    def restored(self, state: State) -> Pruned:
        """The network whose ``Pruned.state`` this is."""
        keep = [kept.numpy() for kept in state["keep"]]
        network = shrink(self.dense, self.coupling, keep)
        network.load_state_dict(state["weights"])
        return Pruned(network, keep, state["steps"])

    def trainer(self, pruned: Pruned) -> Trainer:
        """What trains a network on the training images, towards the dense one's outputs if the job distills."""
        recovery = self._spec.recovery
        module = moved(pruned.network, self.passes.device)
        return Trainer(
            *(module, self._teacher, self._data.train, self.passes.objective, recovery.recipe),
            distill=recovery.distill,
            seed=self._spec.seed,
            inputs=self._inputs(pruned.keep),
            done=pruned.steps,
        )

    @cached_property
    def _teacher(self) -> Teacher:
        return Teacher(self.passes.dense, self._data.train, self.passes.layout, self._inputs(self._dense.pruned.keep))

    def _inputs(self, keep: Sequence[Indices]) -> Mapping[str, Inputs]:
        """What a network that kept these channels learns beside the dense one's outputs."""
        return kept_inputs(self.dense, self.coupling, keep) if self._spec.recovery.recipe.features else {}

    def _from(self, start: Pruned) -> _Source:
        if self._latest.pruned is not start:
            coupling = self.coupling.shrunk(start.keep)
            self._latest = _Source(start, coupling, self._find(moved(start.network, CPU), coupling))
        return self._latest

    def _find(self, network: fx.GraphModule, coupling: Coupling) -> Findings:
        """About a network on the CPU, so that channels are chosen alike whatever evaluates the cut."""
        scores = self._score(network, coupling) if self.schedule is None else []
        return Findings(scores, self._moments(network, coupling))

    def _moments(self, network: fx.GraphModule, coupling: Coupling) -> Moments | None:
        if self._spec.recovery.least_squares is False or self.schedule is not None:
            return None
        with _threads(self._spec.resources.cpus):
            batches = self._data.train.first(_RECONSTRUCTION_IMAGES).batches(_BATCH)
            return input_moments(network, coupling, [images for images, _ in batches])

    def _trained(
        self, schedule: Schedule, source: _Source, widths: Sequence[int], report: Callable[[str], None]
    ) -> tuple[fx.GraphModule, int]:
        """A copy of the source as the schedule leaves it, and the steps of training in it."""
        coupling = source.coupling
        module = shrink(source.pruned.network, coupling, [np.arange(len(group.classes)) for group in coupling.prunable])
        layers = coupling.layer_widths(widths)
        sparsity = {layer: 1 - kept / dense for layer, (kept, dense) in layers.items() if kept < dense}
        trainer = self.trainer(replace(source.pruned, network=module))
        schedule.run(Task(module, sparsity, trainer, report))
        remove_masks(module)
        return module, trainer.done

    def recalibrate(self, module: fx.GraphModule) -> None:
        """Re-estimates BatchNorm statistics on the first training images."""
        self.passes.recalibrate(module)

    def quality(self, module: fx.GraphModule, split: Split, race: Race | None = None) -> Quality:
        """Metric and divergence from the dense network on a split; see ``Passes.quality``."""
        return self.passes.quality(module, split, race)

    def _score(self, network: fx.GraphModule, coupling: Coupling) -> list[Scores]:
        """Importance of every channel class, calibrated on the first training images where the criterion asks for it."""
        criterion, together = make_criterion(self._spec), ranks_globally(self._spec)
        if not isinstance(criterion, Calibrated):
            return group_scores(network, coupling, criterion, across_groups=together)
        layers_seen = watched(network, coupling, criterion)
        with _threads(self._spec.resources.cpus):
            batches = self._labelled(self._data.train.first(criterion.images))
            statistics = calibrate(network, layers_seen, criterion, batches, self.passes.objective.loss)
        return group_scores(network, coupling, criterion, statistics, across_groups=together)

    def _labelled(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches with what is right: the labels, or without any what the dense network answers."""
        objective = self.passes.objective
        for images, labels in split.batches(_BATCH):
            if labels is None or not objective.learns_labels:
                with torch.no_grad():
                    labels = objective.answers(self.dense(images))
            yield images, labels


def make_schedule(spec: JobSpec) -> Schedule | None:
    """The job's schedule, if its pruner is one.

    Raises:
        InvalidInput: parameters that it does not take, or a searcher that cannot run it.
    """
    if spec.pruner.name not in SCHEDULES:
        return None
    check_schedule(spec)
    try:
        return parse_schedule(spec.pruner.name, tuple(spec.pruner.params.items()))
    except ValidationError as error:
        raise refusal(error.errors(), "pruner.params") from error


def parse_schedule(name: str, params: Sequence[tuple[str, Any]]) -> Schedule:
    """The schedule of that name; pydantic's ``ValidationError`` names a parameter that it does not take."""
    return SCHEDULES[name].model_validate(dict(params))


def make_criterion(spec: JobSpec) -> Criterion:
    """The job's criterion; one that draws random numbers follows the job's seed unless it is given its own.

    Raises:
        InvalidInput: no such criterion, or parameters that it does not take.
    """
    kind = CRITERIA[spec.pruner.name]
    seeded = any(field.name == "seed" for field in dataclasses.fields(kind))
    try:
        return TypeAdapter(kind).validate_python({**({"seed": spec.seed} if seeded else {}), **spec.pruner.params})
    except ValidationError as error:
        raise refusal(error.errors(), "pruner.params") from error


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A fixed number of threads, since sums differ in the last digit with it, and every process must choose alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
