"""What a trial does: choose channels ▸ shrink ▸ recalibrate BatchNorm ▸ evaluate. Needs no Ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, fx, nn
from torch.nn import functional

from pruners.calibration import calibrate
from pruners.criteria.base import CRITERIA, Calibrated, Criterion
from pruners.errors import InvalidInput
from pruners.graph.check import traced
from pruners.graph.groups import Indices
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.importance import Scores, choose, group_scores, unscored, watched
from pruners.recovery.batchnorm import recalibrate_batchnorm
from searchers.base import Outcome
from workers.data import Split, Splits, as_input
from workers.inspection import describe_groups
from workers.plan import refusal, selected_groups
from workers.spec import JobSpec

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


class Evaluator:
    """Evaluates pruning plans of one network on one data set.

    Args:
        model: the ``.pt2`` file.
        data: the job's splits.
        spec: names the criterion and the recovery.

    Raises:
        InvalidInput: parameters that the criterion does not take, or a group that it cannot score.
    """

    def __init__(self, model: Path, data: Splits, spec: JobSpec) -> None:
        self._data = data
        self._recalibrate = spec.recovery.batchnorm_images
        self.dense: fx.GraphModule = build_module(read_program(model))
        self.coupling = traced(self.dense)
        self._scores = self._score(spec)
        self._reference: dict[int, list[Tensor]] = {}  # the dense network's log-probabilities by split

    def evaluate(self, widths: Sequence[int]) -> Outcome:
        """The plan's score (−KL) and accuracy on the search images; whatever goes wrong is the plan's own failure."""
        try:
            quality = self.quality(self.network(widths), self._data.search)
        except (RuntimeError, ValueError) as error:
            return Outcome(None, error=f"{type(error).__name__}: {error}".splitlines()[0])
        if not math.isfinite(quality.divergence):
            return Outcome(None, error="The pruned network's outputs are not finite.")
        return Outcome(-quality.divergence, quality.accuracy)

    def keep(self, widths: Sequence[int]) -> list[Indices]:
        """Which channel classes of each prunable group stay at these widths."""
        return choose(self.coupling, self._scores, widths)

    def network(self, widths: Sequence[int]) -> fx.GraphModule:
        """The network physically shrunk to these widths, its BatchNorm recalibrated on training images."""
        small = shrink(self.dense, self.coupling, self.keep(widths))
        self.recalibrate(small)
        return small

    def recalibrate(self, module: nn.Module) -> None:
        """Re-estimates BatchNorm statistics on the first training images."""
        images = self._data.train.x[: self._recalibrate]
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
