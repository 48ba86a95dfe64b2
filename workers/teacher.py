"""What the dense network answers to training images, for networks that learn from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import torch
from torch import Tensor, fx

from pruners.graph.fuse import fused
from workers.data import EVALUATION_BATCH, Split
from workers.device import CPU, Fitting, pieces, sent
from workers.features import telling

_REMEMBERED_BYTES = 64 * 2**20  # of answers: those to 50,000 images of 300 classes


class Teacher:
    """The dense network in eval mode, with BatchNorm in its convolutions; what it answers is remembered where that is small.

    Args:
        dense: on the device where networks are trained.
        images: those to learn from.
        layout: of images in memory.
        layers: those whose inputs networks learn too.
    """

    def __init__(self, dense: fx.GraphModule, images: Split, layout: torch.memory_format, layers: Collection[str] = ()) -> None:
        self._dense = dense
        self._images = images
        self._layers = layers
        self.layout = layout

    @cached_property
    def _network(self) -> fx.GraphModule:
        return fused(telling(self._dense.eval(), self._layers))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Its answers to images on its device, and by layer what that takes in of them."""
        answers, inputs = self._network(images)
        return answers, inputs

    @cached_property
    def answers(self) -> Tensor | None:
        """Its answers to all images, in their order, on the CPU; ``None`` where they take more than 64 MiB.

        Always found in the same batches, so that they are the same bits in every process.
        """
        return Fitting()(self._to_all, EVALUATION_BATCH)

    def _to_all(self, most: int) -> Tensor | None:
        device = next((parameter.device for parameter in self._dense.parameters()), CPU)
        found = list[Tensor]()
        for images, _ in self._images.batches():
            for piece in pieces(images.contiguous(memory_format=self.layout), most):
                found.append(self(sent(piece, device))[0].cpu())
            if found[0][:1].nbytes * len(self._images) > _REMEMBERED_BYTES:
                return None
        return torch.cat(found)
