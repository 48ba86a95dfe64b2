"""The networks that trials trained, kept as files for as long as another trial may start from one of them.

Weights in Ray's object store are lost with the process that put them there, and a search goes on after its process was lost
too. So the job's process fetches them, writes them into a folder that outlives it, and puts them into the store itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import ray
import torch

from searchers.base import Proposal
from workers.evaluator import Evaluator
from workers.pruned import Pruned, State, save_whole


class Networks:
    """What came of a job's trials, by their proposals' ids.

    Args:
        folder: made if it is not there; networks that an earlier attempt left in it are found.
        evaluator: makes a network again whose file is not there: the same cut, the same training.
        proposals: by id, all that were asked for so far.
        report: told of every epoch if that takes some.
    """

    def __init__(
        self, folder: Path, evaluator: Evaluator, proposals: Mapping[int, Proposal], report: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._evaluator = evaluator
        self._proposals = proposals
        self._report = report
        self._references: dict[int, ray.ObjectRef[State]] = {}

    def put(self, number: int, state: State) -> None:
        """Writes a network; it is there whole or not at all."""
        save_whole(state, self._file(number))

    def get(self, number: int) -> Pruned:
        """The network of a trial, the very weights that were judged if they are still there."""
        if self._file(number).exists():
            return self._evaluator.restored(torch.load(self._file(number), weights_only=True))
        proposal = self._proposals[number]
        start = None if proposal.parent is None else self.get(proposal.parent)
        return self._evaluator.prune(proposal.widths, start, proposal.training, self._report)

    def reference(self, number: int) -> ray.ObjectRef[State]:
        """The same for trials to fetch; owned by this process, as long as it is not dropped."""
        if number not in self._references:
            self._references[number] = ray.put(self.get(number).state())
        return self._references[number]

    def keep_only(self, numbers: Collection[int]) -> None:
        """Deletes all others."""
        for file in self._folder.glob("*.pt"):
            if int(file.stem) not in numbers:
                file.unlink()
        self._references = {number: reference for number, reference in self._references.items() if number in numbers}

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.pt"
