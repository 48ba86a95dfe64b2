"""What the first parts of one network made of some batches, kept for the next network that begins with the same parts.

A candidate that differs from an earlier one in a single group differs from that group's first layer on; what lies before needs
no second pass. Parts are compared by what they hold (``pruners.graph.chain.fingerprints``), not by the plan that they came
from, so nothing but an equal computation is ever taken for equal, whatever recovery did to the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from workers.device import Images, pieces

Run = Callable[[Tensor], Tensor]

_WORTH = 1 / 12  # of a network's parts: the outputs of fewer, the first and largest, take tens of MiB and spare hardly any time
_REMEMBERED = 4096  # keys seen: those of a hundred networks of forty parts, at some hundred bytes each


@dataclass(frozen=True)
class _Prefix:
    """The first parts of a network: their key, what they put out by batch, and their buffers after they were run.

    There are outputs of the first batches alone where nobody took the others.
    """

    key: bytes
    outputs: list[Tensor]
    buffers: list[Tensor]


class Prefixes:
    """Runs networks over the same batches, each from behind the parts whose outputs are kept, if it has them.

    Most of what a network computes no other one will ask for. So what is kept is the longest prefix of the latest network that
    an earlier network had as well, and no more than that one, unless it is too short to be worth its memory. It serves
    searches that try one group after the other in the order of execution: every candidate shares with all that follow it what
    lies before its own group.

    Args:
        batches: the networks' inputs.
        limit: of the kept outputs, in bytes; a prefix whose outputs are larger is not kept, so that 0 runs every network whole.
        written: whether parts may write into what they are given.

    Attributes:
        run_parts: how many were run so far; of one batch through one part.
        spared_parts: how many were not, because their outputs were known.
    """

    def __init__(self, batches: Images, limit: int, written: bool) -> None:
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
        prepare: Callable[[fx.GraphModule], Run] = lambda part: part,
        most: int | None = None,
    ) -> Generator[Tensor]:
        """The network's outputs, batch by batch; whoever does not take them all closes the generator.

        Buffers of parts that are spared are set to what running them would have made of them.

        Args:
            parts: of the network, in order.
            keys: for each part, what stands for it and for all before it.
            prepare: what is done to a part that is run, once.
            most: images at a time; where batches have more of them, their pieces pass through the whole network.
        """
        if most is not None and most < self._batches.largest:
            self._kept = None
            yield from self._in_pieces([prepare(part) for part in parts], most)
            return
        kept = self._kept if self._kept is not None and self._kept.key in keys else None
        start, known = 0, list[Tensor]()
        if kept is not None:
            start, known = keys.index(kept.key) + 1, kept.outputs
            for buffer, found in zip(_buffers(parts[:start]), kept.buffers, strict=True):
                buffer.copy_(found)
        shared = max((place for place, key in enumerate(keys[:-1], 1) if key in self._seen), default=0)
        self._remember(keys)
        prepared: dict[int, Run] = {}
        outputs: list[Tensor] = []
        try:
            for number, batch in enumerate(self._batches):
                first, value = (start, known[number]) if number < len(known) else (0, batch)
                for place in range(first, len(parts)):
                    if place == shared >= _WORTH * len(parts) and value.nbytes * len(self._batches) <= self._limit:
                        outputs.append(self._own(value))
                    if place not in prepared:
                        prepared[place] = prepare(parts[place])
                    value = prepared[place](self._own(value) if place == first else value)
                self.run_parts += len(parts) - first
                self.spared_parts += first
                yield value
        finally:
            if outputs and (shared != start or len(outputs) > len(known)):
                buffers = [buffer.clone() for buffer in _buffers(parts[:shared])]
                self._kept = _Prefix(keys[shared - 1], outputs, buffers)

    def _in_pieces(self, runs: Sequence[Run], most: int) -> Generator[Tensor]:
        for batch in self._batches:
            outputs = []
            for piece in pieces(batch, most):
                value = self._own(piece)
                for run in runs:
                    value = run(value)
                outputs.append(value)
            self.run_parts += len(runs)
            yield torch.cat(outputs)

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
