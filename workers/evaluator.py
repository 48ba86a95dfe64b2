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
from pruners.criteria.base import CRITERIA, Calibrated, Criterion
from pruners.criteria.l2_filter import L2Filter
from pruners.errors import InvalidInput
from pruners.graph.check import traced
from pruners.graph.groups import Indices
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.importance import Scores, choose, group_scores, unscored, watched
from pruners.masking import remove_masks
from pruners.recovery.batchnorm import recalibrate_batchnorm
from searchers.base import Outcome
from workers.data import Split, Splits, as_input
from workers.inspection import describe_groups
from workers.plan import check_schedule, refusal, selected_groups
from workers.schedules.base import SCHEDULES, Schedule, Task
from workers.spec import JobSpec
from workers.training import Trainer

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

    Raises:
        InvalidInput: parameters that the pruner does not take, or a group that it cannot score.
    """

    def __init__(self, model: Path, data: Splits, spec: JobSpec) -> None:
        self._data = data
        self._spec = spec
        self.schedule = make_schedule(spec)
        self.dense: fx.GraphModule = build_module(read_program(model))
        self.coupling = traced(self.dense)
        self._scores = self._score(spec) if self.schedule is None else []
        self._layout = _layout(self.dense, data.search)
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
        """The network physically shrunk to these widths, its BatchNorm recalibrated on training images."""
        if self.schedule is None:
            source, keep = self.dense, choose(self.coupling, self._scores, widths)
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

    def _trained(self, schedule: Schedule, widths: Sequence[int], report: Callable[[str], None]) -> fx.GraphModule:
        module = shrink(self.dense, self.coupling, [np.arange(len(group.classes)) for group in self.coupling.prunable])
        layers = self.coupling.layer_widths(widths)
        sparsity = {layer: 1 - kept / dense for layer, (kept, dense) in layers.items() if kept < dense}
        schedule.run(Task(module, sparsity, self.trainer(module), report))
        remove_masks(module)
        return module

    def recalibrate(self, module: nn.Module) -> None:
        """Re-estimates BatchNorm statistics on the first training images."""
        images = self._data.train.x[: self._spec.recovery.batchnorm_images]
        starts = range(0, len(images), _BATCH)
        batches = (as_input(images[start : start + _BATCH]) for start in starts)
        recalibrate_batchnorm(module, (batch.contiguous(memory_format=self._layout) for batch in batches))

    def quality(self, module: nn.Module, split: Split) -> Quality:
        """Accuracy and divergence from the dense network on a split."""
        if id(split) not in self._reference:
            self._reference[id(split)] = _log_probabilities(self.dense, split, self._layout)
        correct, divergence = 0, 0.0
        outputs = _log_probabilities(module, split, self._layout)
        batches = zip(self._reference[id(split)], outputs, split.batches(), strict=True)
        for reference, found, (_, labels) in batches:
            divergence += float(functional.kl_div(found, reference, reduction="sum", log_target=True))
            correct += int((found.argmax(1) == labels).sum())
        return Quality(correct / len(split), divergence / len(split))

    def _score(self, spec: JobSpec) -> list[Scores]:
        """Importance of every channel class, calibrated on the first training images where the criterion asks for it."""
        criterion = make_criterion(spec)
        selected = selected_groups(describe_groups(self.coupling), spec.pruner.config_list)
        for group in unscored(self.dense, self.coupling, criterion):
            if group.name in selected:
                problem = f"scores BatchNorms, but the channels of {group.name} pass through none; use another pruner"
                layers = ", ".join(group.layers)
                raise InvalidInput("pruner.name", spec.pruner.name, f"{problem}, or exclude {layers} in pruner.config_list")
        if not isinstance(criterion, Calibrated):
            return group_scores(self.dense, self.coupling, criterion)
        train = self._data.train
        batches = Split(train.x[: criterion.images], train.y[: criterion.images]).batches(_BATCH)
        layers_seen = watched(self.dense, self.coupling, criterion)
        with _threads(spec.resources.cpus):
            statistics = calibrate(self.dense, layers_seen, criterion, batches)
        return group_scores(self.dense, self.coupling, criterion, statistics)


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
def _layout(module: nn.Module, split: Split) -> torch.memory_format:
    """Channels last where the network takes images so: convolutions of few channels gain a fifth to a third on a CPU.

    A network that reshapes a layer's output by ``view`` does not.
    """
    images, _ = next(split.batches(size=2))
    if images.dim() != 4:
        return torch.contiguous_format
    module.eval()
    try:
        module(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


@torch.inference_mode()
def _log_probabilities(module: nn.Module, split: Split, layout: torch.memory_format) -> list[Tensor]:
    module.eval()
    batches = (images.contiguous(memory_format=layout) for images, _ in split.batches())
    return [functional.log_softmax(module(images), 1) for images in batches]
