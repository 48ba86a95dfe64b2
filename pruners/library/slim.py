"""Slim: the scales of BatchNorms are trained towards zero, then the smallest of the whole network go.

Liu et al., Learning Efficient Convolutional Networks through Network Slimming, arXiv 1708.06519.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from pruners.config import ConfigList
from pruners.criteria.base import NORMS
from pruners.criteria.slim import Slim
from pruners.errors import InvalidInput
from pruners.library.base import Pruner
from pruners.library.ranking import kept_globally
from pruners.masking import channel_masks


class SlimPruner(Pruner):
    """The smallest ``|γ|`` go, and β with them; the layers of one ``config_list`` entry are ranked together.

    Of all their channels ``floor(sparsity · channels)`` go, but each layer keeps one at least.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``; its layers are BatchNorms.
        optimizer: what trains the network; ``sparsifying`` needs it, and masked scales then stay zero behind each of its steps.
        scale: λ of ``sparsifying``. The paper takes 1e-4 for VGG and 1e-5 for ResNet and DenseNet.

    Raises:
        InvalidInput: a ``config_list`` that cannot be used, or a negative ``scale``.
    """

    supported = NORMS

    def __init__(
        self, model: nn.Module, config_list: ConfigList, optimizer: Optimizer | None = None, scale: float = 1e-4
    ) -> None:
        if not scale >= 0:
            raise InvalidInput("scale", scale, "must be 0 or more")
        super().__init__(model, config_list, optimizer)
        self._scale = scale

    @contextmanager
    def sparsifying(self) -> Iterator[None]:
        """While it lasts, each step of the optimiser has ``scale · sign(γ)`` added to the gradient of every scale: λ·Σ|γ| in
        the loss, whatever the loss is scaled by. Not for optimisers whose step computes gradients itself, such as LBFGS.

        Raises:
            InvalidInput: the pruner was made without an optimiser.
        """
        if self.optimizer is None:
            raise InvalidInput("optimizer", None, "is missing; sparsifying() adds to the gradients that it steps on")

        def before_step(*_: Any) -> None:
            for layer in self.layers.values():
                scales = layer.get_parameter("weight")
                if scales.grad is not None:
                    scales.grad.add_(scales.detach().sign(), alpha=self._scale)

        handle = self.optimizer.register_step_pre_hook(before_step)
        try:
            yield
        finally:
            handle.remove()

    def mask_to(self, sparsity: Mapping[str, float]) -> None:
        scores = {name: Slim().scores(layer) for name, layer in self.layers.items()}
        before = {name: self._before(name) for name in self.layers}
        stay: dict[str, Tensor] = {}
        for names in self._by_entry():
            stay.update(kept_globally({name: scores[name] for name in names}, sparsity, before))
        for name, keep in stay.items():
            self._set(name, channel_masks(self.layers[name], keep))
