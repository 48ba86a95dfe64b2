"""Ray Tune's view of a search: an ask/tell machine behind ``ray.tune.search.Searcher``. The only file here that knows Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher as TuneSearcher

from searchers.base import Done, Proposal, Rival, Wait

PROPOSAL, WIDTHS, PARENT, TRAINING, RACE = "proposal", "widths", "parent", "training", "race"
"""Keys of a trial's config: the proposal's id, its widths, and its parent's network, its training and its race, or ``None``."""


class AskTell(TuneSearcher):
    """Passes asks and tells on, and nothing else: what happened is kept by the job, not by Tune.

    Args:
        ask: as ``searchers.base.Searcher.ask``.
        tell: called once per ended trial with the proposal's id and its result, or ``None`` if its worker was lost for good.
        network: by the id of a proposal, how a trial gets at what came of it.
        race: what a trial with a rival needs to know of it.
        most: trials that may run at once, as things are.
    """

    def __init__(
        self,
        ask: Callable[[], Proposal | Wait | Done],
        tell: Callable[[int, Mapping[str, Any] | None], None],
        network: Callable[[int], Any],
        race: Callable[[Rival], Any],
        most: Callable[[], int],
    ) -> None:
        super().__init__()  # without a metric: epochs of a trial that trains have no score
        self._ask = ask
        self._tell = tell
        self._network = network
        self._race = race
        self.most = most
        self._proposals: dict[str, int] = {}  # Tune's trial id → the proposal's

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; ``None`` while the search waits or enough trials run, ``FINISHED`` when it is over."""
        if self.running() >= self.most():
            return None
        answer = self._ask()
        if isinstance(answer, Wait):
            return None
        if isinstance(answer, Done):
            return str(TuneSearcher.FINISHED)
        self._proposals[trial_id] = answer.id
        parent = None if answer.parent is None else self._network(answer.parent)
        race = None if answer.rival is None else self._race(answer.rival)
        return {
            PROPOSAL: answer.id,
            WIDTHS: list(answer.widths),
            PARENT: parent,
            TRAINING: answer.training,
            RACE: race,
        }

    def running(self) -> int:
        """Trials that were handed out and have not ended."""
        return len(self._proposals)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune calls this once per trial, by keyword."""
        self._tell(self._proposals.pop(trial_id), None if error else result)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles a run's parts for a restore that never comes; nothing of a live search belongs there."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune offers to pickle the search; the job's rows are its state, so there is nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""
