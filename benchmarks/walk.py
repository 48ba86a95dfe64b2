"""A search walked to its end in this process, one trial after the other, without Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchers.base import Done, Proposal, Searcher
from searchers.space import SearchSpace, Widths
from workers.evaluator import Evaluator
from workers.passes import Race
from workers.pruned import Pruned


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        score, widths, pruned: of the best plan within the budget, the earlier of equals.
        trials: that were evaluated.
        seconds: of this process' time.
        thinking: those of them that no evaluation took.
    """

    score: float
    widths: Widths
    pruned: Pruned
    trials: int
    seconds: float
    thinking: float


def search(machine: Searcher, evaluator: Evaluator, space: SearchSpace) -> Found:
    """Asks, evaluates and tells until the search is over.

    Raises:
        RuntimeError: no trial within the budget succeeded.
    """
    best: tuple[float, Widths, Pruned] | None = None
    parents: dict[int, Pruned] = {}
    losses: dict[int, NDArray[np.float32]] = {}
    trials, evaluating, start = 0, 0.0, time.process_time()
    while not isinstance(proposal := machine.ask(), Done):
        assert isinstance(proposal, Proposal)  # with nothing running a searcher never waits
        before = time.process_time()
        parent = None if proposal.parent is None else parents[proposal.parent]
        rival = proposal.rival
        race = None if rival is None else Race(losses[rival.number], rival.bar, rival.confidence)
        outcome, pruned = evaluator.evaluate_keeping(proposal.widths, parent, proposal.training, race=race)
        evaluating += time.process_time() - before
        machine.tell(proposal.id, outcome)
        trials += 1
        if outcome.score is None or pruned is None:
            continue
        if pruned.losses is not None:
            losses[proposal.id] = pruned.losses
        if machine.names_parents:
            parents[proposal.id] = pruned
        if space.fits(proposal.widths) and (best is None or outcome.score > best[0]):
            best = (outcome.score, proposal.widths, pruned)
    seconds = time.process_time() - start
    if best is None:
        raise RuntimeError(f"none of {trials} trials within the budget succeeded")
    return Found(*best, trials, seconds, seconds - evaluating)
