"""What a trial does: choose channels (or train by a schedule) ▸ shrink ▸ recalibrate BatchNorm ▸ evaluate. Needs no Ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, fx, nn
from torch.nn import functional

from pruners.calibration import calibrate
from pruners.cost import METRICS
from pruners.criteria.base import CRITERIA, Calibrated, Criterion
from pruners.criteria.l2_filter import L2Filter
from pruners.graph.check import traced
from pruners.graph.groups import Indices
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.importance import Scores, choose, group_scores, watched
from pruners.library.ranking import kept
from pruners.masking import remove_masks
from pruners.recovery.batchnorm import recalibrate_batchnorm
from searchers.base import Outcome
from searchers.space import SearchSpace
from workers.data import Split, Splits, as_input
from workers.inspection import describe_groups, describe_layers
from workers.log import Plan
from workers.plan import check_schedule, check_scored, make_space, ranks_globally, refusal
from workers.schedules.base import SCHEDULES, Schedule, Task
from workers.spec import JobSpec
from workers.training import Trainer
from workers.weights import prunes_weights, weight_cost, weight_groups

_BATCH = 64  # several batches of a few hundred images, so that averages over batches say something


@dataclass(frozen=True)
class Quality:
    """How a network does on some images.

    Attributes:
        accuracy: top-1, 0…1.
        divergence: mean KL from the dense network's outputs to this one's, in nats; 0 is the dense network itself.
    """

    accuracy: float
    divergence: float


@dataclass(frozen=True)
class Pruned:
    """A network that lost its channels, and which classes of each prunable group it kept."""

    network: fx.GraphModule
    keep: list[Indices]


class Evaluator:
    """Evaluates pruning plans of one network on one data set.

    Args:
        model: the ``.pt2`` file.
        data: the job's splits.
        spec: names the criterion or the schedule, and the recovery.

    Attributes:
        schedule: what trains and prunes at once, if the job's pruner does.
        weights: the layers whose weights a job of sparsity zeroes; ``None`` in any other job.
        scores: otherwise, per prunable group, the importance of each of its classes.

    Raises:
        InvalidInput: parameters that the pruner does not take, or a group that it cannot score.
    """

    def __init__(self, model: Path, data: Splits, spec: JobSpec) -> None:
        self._data = data
        self._spec = spec
        self.schedule = make_schedule(spec)
        self.dense: fx.GraphModule = build_module(read_program(model))
        self.coupling = traced(self.dense)
        self.weights = describe_layers(self.dense, self.coupling) if prunes_weights(spec) else None
        self.scores = self._score(spec) if self.schedule is None and self.weights is None else []
        self._reference: dict[int, list[Tensor]] = {}  # the dense network's log-probabilities by split

    def evaluate(self, widths: Sequence[int]) -> Outcome:
        """The plan's score (−KL) and accuracy on the search images; whatever goes wrong is the plan's own failure."""
        return self.evaluate_keeping(widths)[0]

    def evaluate_keeping(
        self, widths: Sequence[int], report: Callable[[str], None] = lambda _: None
    ) -> tuple[Outcome, Pruned | None]:
        """The same, with the network that was judged; ``report`` hears of every epoch of a schedule."""
        try:
            pruned = self.prune(widths, report)
            quality = self.quality(pruned.network, self._data.search)
        except (RuntimeError, ValueError) as error:
            return Outcome(None, error=f"{type(error).__name__}: {error}".splitlines()[0]), None
        if not math.isfinite(quality.divergence):
            return Outcome(None, error="The pruned network's outputs are not finite."), None
        return Outcome(-quality.divergence, quality.accuracy), pruned

    def prune(self, widths: Sequence[int], report: Callable[[str], None] = lambda _: None) -> Pruned:
        """The network physically shrunk to these widths, its BatchNorm recalibrated on training images.

        In a job of sparsity the widths are weights, and the rest of them zero.
        """
        if self.weights is not None:
            source, keep = self._sparse(widths), self._everything()
        elif self.schedule is None:
            source, keep = self.dense, choose(self.coupling, self.scores, widths)
        else:
            source = self._trained(self.schedule, widths, report)
            # Channels that the schedule masked are zero, so they go first; where it masked fewer, the weakest do.
            keep = choose(self.coupling, group_scores(source, self.coupling, L2Filter()), widths)
        small = shrink(source, self.coupling, keep)
        self.recalibrate(small)
        return Pruned(small, keep)

    def trainer(self, module: fx.GraphModule) -> Trainer:
        """What trains a network on the training images, towards the dense one's outputs if the job distills."""
        return Trainer(module, self.dense, self._data.train, distill=self._spec.recovery.distill, seed=self._spec.seed)

    def space(self) -> SearchSpace:
        """What the job searches over."""
        if self.weights is not None:
            return make_space(weight_groups(self.weights), weight_cost(self.weights), self._spec)
        scores = [each.tolist() for each in self.scores] if ranks_globally(self._spec) else None
        return make_space(describe_groups(self.dense, self.coupling), self.coupling.cost, self._spec, scores)

    def plan(self, widths: Sequence[int]) -> Plan:
        """What a proposal means, layer by layer and in costs."""
        if self.weights is not None:
            names = [layer["name"] for layer in self.weights]
            layers = {name: (kept, layer["weights"]) for name, kept, layer in zip(names, widths, self.weights, strict=True)}
        else:
            layers = self.coupling.layer_widths(widths)
        channels = self.channels(widths)
        return Plan(
            widths={layer: kept for layer, (kept, _) in layers.items()},
            sparsity={layer: 1 - kept / dense for layer, (kept, dense) in layers.items()},
            **{metric: self.coupling.cost(metric, channels) for metric in METRICS},
        )

    def channels(self, widths: Sequence[int]) -> list[int]:
        """The channels that a proposal keeps of each prunable group: all of them in a job of sparsity."""
        return list(widths) if self.weights is None else [group.width for group in self.coupling.prunable]

    def _everything(self) -> list[Indices]:
        return [np.arange(len(group.classes)) for group in self.coupling.prunable]

    def _sparse(self, widths: Sequence[int]) -> fx.GraphModule:
        module = shrink(self.dense, self.coupling, self._everything())
        for layer, width in zip(self.weights or [], widths, strict=True):
            weight = module.get_submodule(layer["name"]).get_parameter("weight")
            with torch.no_grad():
                weight.mul_(kept(weight.abs(), weight.numel() - width))
        return module

    def _trained(self, schedule: Schedule, widths: Sequence[int], report: Callable[[str], None]) -> fx.GraphModule:
        module = shrink(self.dense, self.coupling, self._everything())
        layers = self.coupling.layer_widths(widths)
        sparsity = {layer: 1 - kept / dense for layer, (kept, dense) in layers.items() if kept < dense}
        schedule.run(Task(module, sparsity, self.trainer(module), report))
        remove_masks(module)
        return module

    def recalibrate(self, module: nn.Module) -> None:
        """Re-estimates BatchNorm statistics on the first training images."""
        images = self._data.train.x[: self._spec.recovery.batchnorm_images]
        starts = range(0, len(images), _BATCH)
        recalibrate_batchnorm(module, (as_input(images[start : start + _BATCH]) for start in starts))

    def quality(self, module: nn.Module, split: Split) -> Quality:
        """Accuracy and divergence from the dense network on a split."""
        if id(split) not in self._reference:
            self._reference[id(split)] = list(_log_probabilities(self.dense, split))
        correct, divergence = 0, 0.0
        batches = zip(self._reference[id(split)], _log_probabilities(module, split), split.batches(), strict=True)
        for reference, found, (_, labels) in batches:
            divergence += float(functional.kl_div(found, reference, reduction="sum", log_target=True))
            correct += int((found.argmax(1) == labels).sum())
        return Quality(correct / len(split), divergence / len(split))

    def _score(self, spec: JobSpec) -> list[Scores]:
        """Importance of every channel class, calibrated on the first training images where the criterion asks for it."""
        criterion = make_criterion(spec)
        check_scored(describe_groups(self.dense, self.coupling), spec)
        together = ranks_globally(spec)
        if not isinstance(criterion, Calibrated):
            return group_scores(self.dense, self.coupling, criterion, across_groups=together)
        train = self._data.train
        batches = Split(train.x[: criterion.images], train.y[: criterion.images]).batches(_BATCH)
        layers_seen = watched(self.dense, self.coupling, criterion)
        with _threads(spec.resources.cpus):
            statistics = calibrate(self.dense, layers_seen, criterion, batches)
        return group_scores(self.dense, self.coupling, criterion, statistics, together)


def make_schedule(spec: JobSpec) -> Schedule | None:
    """The job's schedule, if its pruner is one.

    Raises:
        InvalidInput: parameters that it does not take, or a searcher that cannot run it.
    """
    if spec.pruner.name not in SCHEDULES:
        return None
    check_schedule(spec)
    try:
        return SCHEDULES[spec.pruner.name].model_validate(spec.pruner.params)
    except ValidationError as error:
        raise refusal(error.errors(), "pruner.params") from error


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


@torch.inference_mode()
def _log_probabilities(module: nn.Module, split: Split) -> list[Tensor]:
    module.eval()
    return [functional.log_softmax(module(images), 1) for images, _ in split.batches()]
