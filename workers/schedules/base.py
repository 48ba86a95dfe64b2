"""The contract of schedules, what they work on, and their registry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, fx, nn

from pruners.masking import Masks, set_masks
from pruners.registry import Registry
from pruners.speedup import norms_behind
from workers.spec import Strict
from workers.training import Trainer

ByWeight = Literal["l1", "l2", "fpgm", "random"]


@dataclass(frozen=True)
class Task:
    """What a schedule works on.

    Attributes:
        module: the network, trained and masked in place.
        sparsity: by layer the share of its output channels that goes.
        trainer: of this network.
        report: told one line after every epoch.
    """

    module: fx.GraphModule
    sparsity: Mapping[str, float]
    trainer: Trainer
    report: Callable[[str], None]

    def config_list(self, **values: float) -> list[dict[str, Any]]:
        """The library's ``config_list``: each layer with its sparsity, and with these values."""
        return [{"sparsity": share, "op_names": [layer], **values} for layer, share in self.sparsity.items()]

    @property
    def options(self) -> dict[str, Any]:
        """What makes the library's pruners mask coupled layers alike."""
        device = next(self.module.parameters()).device
        examples = tuple(value.example().to(device) for value in self.module.meta["inputs"])
        return {"dependency_aware": True, "dummy_input": examples}

    def train(self, epoch: int, epochs: int, what: str) -> None:
        """One epoch and its report, numbered from 0."""
        loss = self.trainer.epoch()
        self.report(f"{what}: epoch {epoch + 1} of {epochs}, loss {loss:.4f}.")

    def silence(self, masks: Masks) -> None:
        """Masks the BatchNorms behind masked channels too, whose shift would go on speaking for them."""
        norms = norms_behind(self.module)
        for layer, parts in masks.items():
            weight = parts["weight"]
            if weight is not None:
                keep = _channels_left(self.module, layer, weight)
                for norm in norms.get(layer, []):
                    set_masks(self.module.get_submodule(norm), {"weight": keep, "bias": keep})


def _channels_left(module: fx.GraphModule, layer: str, mask: Tensor) -> Tensor:
    """1 for each output channel of a layer that its mask leaves something of, ``[channels]``."""
    part = module.get_submodule(layer)
    dim = 1 if isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0
    return mask.transpose(0, dim).flatten(1).amax(1)


class Schedule(Strict):
    """Base of the schedules: its fields are the parameters that a job may set."""

    reference: ClassVar[str] = ""

    criterion: ByWeight = Field("l1", description="Which channels go.")

    @abstractmethod
    def run(self, task: Task) -> None:
        """Trains and masks ``task.module`` in place."""


SCHEDULES: Registry[Schedule] = Registry("pruner", "workers.schedules")
