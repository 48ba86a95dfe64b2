"""What the first parts of one network made of some batches, kept for the next network that begins with the same parts.

A candidate that differs from an earlier one in a single group differs from that group's first layer on; what lies before needs
no second pass. Parts are compared by what they hold (``pruners.graph.chain.fingerprints``), not by the plan that they came
from, so nothing but an equal computation is ever taken for equal, whatever recovery did to the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

_REMEMBERED = 4096  # keys seen: those of a hundred networks of forty parts, at some hundred bytes each


@dataclass(frozen=True)
class _Prefix:
    """The first parts of a network: their key, what they put out by batch, and their buffers after they were run."""

    key: bytes
    outputs: list[Tensor]
    buffers: list[Tensor]


class Prefixes:
    """Runs networks over the same batches, each from behind the parts whose outputs are kept, if it has them.

    Most of what a network computes no other one will ask for. So what is kept is the longest prefix of the latest network that
    an earlier network had as well, and no more than that one. It serves searches that try one group after the other in the
    order of execution: every candidate shares with all that follow it what lies before its own group.

    Args:
        batches: the networks' inputs.
        limit: of the kept outputs, in bytes; a prefix whose outputs are larger is not kept, so that 0 runs every network whole.
        written: whether parts may write into what they are given.

    Attributes:
        run_parts: how many were run so far; of one batch through one part.
        spared_parts: how many were not, because their outputs were known.
    """

    def __init__(self, batches: Sequence[Tensor], limit: int, written: bool) -> None:
        self._batches = batches
        self._limit = limit
        self._written = written
        self._kept: _Prefix | None = None
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self.run_parts = 0
        self.spared_parts = 0

    @torch.inference_mode()
    def run(
        self,
        parts: Sequence[fx.GraphModule],
        keys: Sequence[bytes],
        prepare: Callable[[fx.GraphModule], fx.GraphModule] = lambda part: part,
    ) -> Iterator[Tensor]:
        """The network's outputs, batch by batch; of one whose outputs are not all taken nothing is kept.

        Buffers of parts that are spared are set to what running them would have made of them.

        Args:
            parts: of the network, in order.
            keys: for each part, what stands for it and for all before it.
            prepare: what is done to a part that is run, once.
        """
        start, values = 0, self._batches
        if self._kept is not None and self._kept.key in keys:
            start, values = keys.index(self._kept.key) + 1, self._kept.outputs
            for buffer, found in zip(_buffers(parts[:start]), self._kept.buffers, strict=True):
                buffer.copy_(found)
        shared = max((place for place, key in enumerate(keys[:-1], 1) if key in self._seen), default=0)
        self._remember(keys)
        prepared = [prepare(part) for part in parts[start:]]
        outputs: list[Tensor] = []
        for value in values:
            value = self._own(value)
            for place, part in enumerate(prepared, start + 1):
                value = part(value)
                if place == shared and value.nbytes * len(values) <= self._limit:
                    outputs.append(self._own(value))
            self.run_parts += len(prepared)
            self.spared_parts += start
            yield value
        if outputs:
            self._kept = _Prefix(keys[shared - 1], outputs, [buffer.clone() for buffer in _buffers(parts[:shared])])

    def _own(self, value: Tensor) -> Tensor:
        return value.clone() if self._written else value

    def _remember(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._seen[key] = None
            self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _buffers(parts: Sequence[fx.GraphModule]) -> list[Tensor]:
    return [buffer for part in parts for buffer in part.buffers()]
