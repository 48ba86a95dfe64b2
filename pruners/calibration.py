"""Calibration: what criteria must see besides the weights, gathered by hooks while batches pass, or by ``calibrate``.

Every batch leaves one value per channel, on the device where it arose. They are added up in the end, in float64 and over all
processes of ``torch.distributed``, so every rank gets what one process would have found on all the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from pruners.criteria.base import (
    NORMS,
    ActivationCriterion,
    Calibrated,
    Criterion,
    CurvatureCriterion,
    GradientCriterion,
    as_rows,
    channels,
)
from pruners.errors import InvalidInput
from pruners.hooks import Watching

Batches = Iterable[tuple[Tensor, Tensor]]
"""Inputs ``[n, …]`` and what the loss compares the outputs with, such as labels ``[n]``."""

Loss = Callable[[Tensor, Tensor], Tensor]


class Calibration:
    """Watches layers while somebody's own forward (and backward) passes run, and changes nothing about them.

    A copy of the network is not watched.

    Args:
        layers: by any name, the layer to watch; for activations it may be the norm that follows instead.
        criterion: says what one batch tells.
        batches: after this many a layer's hook removes itself; ``None`` watches until ``close``. A layer that a network
            calls several times counts each call as a batch.

    Raises:
        InvalidInput: a criterion that passes of the user's own cannot tell enough, or a layer without a gradient.
    """

    def __init__(self, layers: Mapping[str, nn.Module], criterion: Criterion, batches: int | None = None) -> None:
        self._layers = dict(layers)
        self._limit = batches
        self._seen: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        self._counts = dict.fromkeys(self._layers, 0)  # what the sums are divided by: positions, or batches
        self._hooks: dict[str, RemovableHandle] = {}
        try:
            for name, layer in self._layers.items():
                self._hooks[name] = self._watch(name, layer, criterion)
        except InvalidInput:
            self.close()
            raise

    @property
    def complete(self) -> bool:
        """Whether every layer has seen all its batches."""
        return not self._hooks

    def close(self) -> None:
        """Removes the hooks that are left."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def statistics(self) -> dict[str, Tensor]:
        """The mean of what was observed, ``[channels]`` per layer, float64 on the CPU.

        Raises:
            InvalidInput: a layer that no batch has reached on any rank.
        """
        return _means(self._layers, self._seen, self._counts)

    def _watch(self, name: str, layer: nn.Module, criterion: Criterion) -> RemovableHandle:
        if isinstance(criterion, ActivationCriterion):

            def look(_: nn.Module, __: object, output: Tensor) -> None:
                values = by_channel(layer, _precise(output.detach()))
                self._add(name, criterion.observe(values), values.shape[0] * values.shape[2])

            return layer.register_forward_hook(Watching(look))
        if isinstance(criterion, GradientCriterion):
            weight = layer.get_parameter("weight")
            if not weight.requires_grad:
                raise InvalidInput("layer", name, "has a frozen weight, of which no gradient is known; unfreeze or exclude it")

            def look_back(gradient: Tensor) -> None:
                # GradScaler skips a step whose gradients overflowed; that batch says nothing here either.
                if bool(gradient.isfinite().all()):
                    pair = (as_rows(layer, _precise(tensor.detach())) for tensor in (weight, gradient))
                    self._add(name, criterion.observe(*pair), 1)

            handle: RemovableHandle = weight.register_hook(Watching(look_back))
            return handle
        problem = f"looks at {criterion.signal.value}, which your own passes do not show; give it calibration batches"
        raise InvalidInput("pruner", type(criterion).__name__, problem)

    def _add(self, name: str, observed: Tensor, count: int) -> None:
        self._seen[name].append(observed)
        self._counts[name] += count
        if self._limit is not None and len(self._seen[name]) >= self._limit and name in self._hooks:
            self._hooks.pop(name).remove()


def calibrate(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    criterion: Calibrated,
    batches: Batches,
    loss: Loss = functional.cross_entropy,
) -> dict[str, Tensor]:
    """Statistics of one pass over the batches, in eval mode.

    Train and eval modes, gradients, ``requires_grad`` and BatchNorm statistics are afterwards what they were.

    Args:
        model: the network; inputs and targets go to the device of its parameters.
        layers: by any name, the parts of it to watch.
        criterion: what to look for.
        batches: passed over once.
        loss: of the outputs and the targets, for gradients and curvature.

    Returns:
        Per layer ``[channels]``, float64 on the CPU.

    Raises:
        InvalidInput: no batches, or a layer that none of them reaches.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    moved = ((inputs.to(device), targets.to(device)) for inputs, targets in batches)
    with _evaluating(model):
        if isinstance(criterion, CurvatureCriterion):
            return _curvature(model, layers, criterion, moved, loss)
        calibration = Calibration(layers, criterion)
        try:
            for inputs, targets in moved:
                if isinstance(criterion, GradientCriterion):
                    weights = [layer.get_parameter("weight") for layer in layers.values()]
                    torch.autograd.grad(loss(model(inputs), targets), weights, allow_unused=True)
                else:
                    with torch.inference_mode():
                        model(inputs)
        finally:
            calibration.close()
    return calibration.statistics()


def by_channel(layer: nn.Module, output: Tensor) -> Tensor:
    """What a layer put out as ``[n, channels, positions]``; a view where the layout allows it."""
    space = output.dim() - 2 if isinstance(layer, NORMS) else layer.get_parameter("weight").dim() - 2
    shape = output.shape[-1 - space :]
    return output.reshape(-1, shape[0], shape[1:].numel())


def _precise(tensor: Tensor) -> Tensor:
    """In float32 at least: in half precision, squares of gradients vanish and sums of activations stall."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _means(
    layers: Mapping[str, nn.Module], seen: Mapping[str, Sequence[Tensor]], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Sums over batches and ranks, divided by their counts."""
    sums: dict[str, Tensor] = {}
    for name, layer in layers.items():
        observed = seen[name] or [torch.zeros(channels(layer))]
        total = torch.stack([each.cpu().double() for each in observed]).sum(0)
        sums[name] = torch.cat([total, torch.tensor([counts[name]], dtype=torch.float64)])
    if distributed.is_available() and distributed.is_initialized() and sums:
        device = next((parameter.device for layer in layers.values() for parameter in layer.parameters()), None)
        joined = torch.cat(list(sums.values())).to(device)
        distributed.all_reduce(joined)
        parts = joined.cpu().split([len(each) for each in sums.values()])
        sums = dict(zip(sums, parts, strict=True))
    for name, total in sums.items():
        if total[-1] == 0:
            raise _unreached(name)
    return {name: total[:-1] / total[-1] for name, total in sums.items()}


def _unreached(name: str) -> InvalidInput:
    return InvalidInput("layer", name, "was reached by no batch; run some, or exclude the layer")


def _curvature(
    model: nn.Module, layers: Mapping[str, nn.Module], criterion: CurvatureCriterion, batches: Batches, loss: Loss
) -> dict[str, Tensor]:
    """Products of the loss's Hessian with random vectors of ±1 (Rademacher), all layers at once.

    For such a vector v the mean of v ⊙ Hv is H's diagonal (Hutchinson's estimator).
    """
    generator = torch.Generator().manual_seed(criterion.seed)  # on the CPU, so that every device draws alike
    weights = {name: layer.get_parameter("weight") for name, layer in layers.items()}
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    for inputs, targets in batches:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
            value = loss(model(inputs), targets)
        slopes = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
        for name, slope in zip(weights, slopes, strict=True):
            if slope is None:
                raise _unreached(name)
        for _ in range(criterion.samples):
            vectors = [_signs(weight, generator) for weight in weights.values()]
            products = torch.autograd.grad(slopes, list(weights.values()), vectors, retain_graph=True, materialize_grads=True)
            for (name, layer), vector, product in zip(layers.items(), vectors, products, strict=True):
                pair = (as_rows(layer, _precise(tensor)) for tensor in (vector, product))
                seen[name].append(criterion.observe(*pair))
    return _means(layers, seen, {name: len(observed) for name, observed in seen.items()})


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).mul_(2).sub_(1).to(like)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and gradients for every parameter; modes and ``requires_grad`` are restored."""
    modes = [(part, part.training) for part in model.modules()]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad and parameter.is_floating_point()]
    model.eval()
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for part, training in modes:
            part.training = training
