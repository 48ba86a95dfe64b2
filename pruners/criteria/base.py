"""The contract of one-shot criteria and their registry.

A criterion scores the output channels of one layer from its weights, or from its weights and what calibration batches showed
(``pruners.calibration`` gathers that). Scores are computed in float64 on the CPU, so that every device and every dtype of the
same weights gives the same choice.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from pruners.errors import InvalidInput
from pruners.registry import Registry

Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


_LARGEST_SEED = 2**31 - 1  # as for a job's own seed


class Signal(Enum):
    """What a criterion must see besides the weights."""

    WEIGHT = "nothing"
    ACTIVATION = "activations of forward passes"
    GRADIENT = "gradients of backward passes"
    CURVATURE = "second derivatives of the loss"


@dataclass(frozen=True)
class Criterion(ABC):
    """Scores a layer's output channels; those with the lowest scores go first, of equals those with the higher index.

    A criterion is a frozen dataclass whose fields are its parameters; the first line of its docstring is the description
    that ``GET /pruners`` shows. A field's metadata says what it is (``description``) and
    bounds it (``ge``, ``le``).

    Raises:
        InvalidInput: from the constructor, a parameter beyond its bounds.
    """

    reference: ClassVar[str] = ""
    """The paper or source."""

    signal: ClassVar[Signal] = Signal.WEIGHT

    comparable: ClassVar[bool] = False
    """Whether its scores of different layers are on one scale; others are divided by their mean over the layer for that."""

    scored: ClassVar[tuple[type[nn.Module], ...]] = LAYERS
    """The types of the layers that it scores."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    """Where parameters come as JSON, an unknown one is an error."""

    def __post_init__(self) -> None:
        for parameter in dataclasses.fields(self):
            value, limits = getattr(self, parameter.name), parameter.metadata
            if "ge" in limits and value < limits["ge"]:
                raise InvalidInput(parameter.name, value, f"is too small; give {limits['ge']} or more")
            if "le" in limits and value > limits["le"]:
                raise InvalidInput(parameter.name, value, f"is too large; give {limits['le']} or less")

    @abstractmethod
    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """Importance of each output channel ``[channels]`` of a layer, 0 or more, float64 on the CPU.

        Args:
            layer: one of the ``scored`` types.
            statistics: what calibration found ``[channels]``; needed unless ``signal`` is ``WEIGHT``.
        """


def seed_field(description: str) -> Any:
    """A parameter that seeds random numbers."""
    return field(default=0, metadata={"ge": 0, "le": _LARGEST_SEED, "description": description})


@dataclass(frozen=True)
class Calibrated(Criterion):
    """Base of the criteria that must see data."""

    images: int = field(default=256, metadata={"ge": 1, "description": "Training images that a job calibrates on."})


@dataclass(frozen=True)
class ActivationCriterion(Calibrated):
    """Base of the criteria that look at what a layer puts out.

    Their statistics are means over all batches and positions.
    """

    signal: ClassVar[Signal] = Signal.ACTIVATION

    after: Literal["layer", "norm"] = field(
        default="norm",
        metadata={"description": "Where a job looks: at the layer's own output, or after the BatchNorm that follows it."},
    )

    @abstractmethod
    def observe(self, output: Tensor) -> Tensor:
        """Sums over one batch ``[channels]``, given what the layer put out ``[n, channels, positions]`` in float32 or finer."""


@dataclass(frozen=True)
class GradientCriterion(Calibrated):
    """Base of the criteria that look at the gradient of a layer's weight.

    Their statistics are means over batches.
    """

    signal: ClassVar[Signal] = Signal.GRADIENT

    @abstractmethod
    def observe(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """What one batch says ``[channels]``, given weight and gradient in float32 or finer, ``[channels, weights]`` each."""


@dataclass(frozen=True)
class CurvatureCriterion(Calibrated):
    """Base of the criteria that look at how the loss bends, by products of its Hessian with random vectors of ±1.

    Their statistics are means over batches and vectors, which ``seed`` determines.
    """

    signal: ClassVar[Signal] = Signal.CURVATURE

    samples: int = field(default=8, metadata={"ge": 1, "description": "Random vectors per batch."})
    seed: int = seed_field("Of the random vectors; a job's own by default.")

    @abstractmethod
    def observe(self, vector: Tensor, product: Tensor) -> Tensor:
        """What one vector says ``[channels]``, given it and the Hessian's product with it, ``[channels, weights]`` each."""


def channels(layer: nn.Module) -> int:
    """How many channels a convolution, linear layer or norm puts out."""
    return next(int(getattr(layer, name)) for name in ("out_channels", "out_features", "num_features") if hasattr(layer, name))


def filters(layer: nn.Module) -> Tensor:
    """A layer's weight as one row per output channel ``[channels, weights]``, float64 on the CPU."""
    return as_rows(layer, layer.get_parameter("weight").detach()).cpu().double()


def as_rows(layer: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor of the shape of a layer's weight as one row per output channel ``[channels, weights]``.

    Transposed convolutions store ``[in, out / groups, …]``; an output channel's filter is what it gathers from its group.
    """
    if isinstance(layer, Transposed):
        grouped = tensor.unflatten(0, (layer.groups, -1)).transpose(1, 2)  # [groups, out / groups, in / groups, …]
        tensor = grouped.flatten(0, 1)
    return tensor.flatten(1)


def calibrated(statistics: Tensor | None) -> Tensor:
    """The statistics that a criterion cannot do without; raises ``InvalidInput`` where there are none."""
    if statistics is None:
        raise InvalidInput("statistics", None, "are missing: this pruner needs calibration data, give it some batches")
    return statistics.cpu().double()


CRITERIA: Registry[Criterion] = Registry("pruner", "pruners.criteria")
