"""What trials bring back beside their outcomes: networks that they trained, and losses that later trials race."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from searchers.base import Rival
from workers.choice import Choice
from workers.data import Split
from workers.evaluator import Evaluator
from workers.log import JobLog
from workers.networks import Networks
from workers.passes import Race
from workers.search import RecordedSearch
from workers.trainable import LOSSES, TRAINED


class Results:
    """Takes what trials end with.

    Args:
        search: hears of the outcomes.
        choice: says which networks are needed any longer.
        networks: keeps them.
        evaluator: finds a rival's losses again where an earlier attempt heard them.
        images: those that trials are scored on.
        log: the job's.
    """

    def __init__(
        self, search: RecordedSearch, choice: Choice, networks: Networks, evaluator: Evaluator, images: Split, log: JobLog
    ) -> None:
        self._search = search
        self._choice = choice
        self._networks = networks
        self._evaluator = evaluator
        self._images = images
        self._log = log
        self._losses: dict[int, NDArray[np.float32]] = {}

    def race(self, rival: Rival) -> Race:
        """What a trial has to know of its rival."""
        if rival.number not in self._losses:
            network = self._networks.get(rival.number).network
            self._losses[rival.number] = self._evaluator.quality(network, self._images).losses
        return Race(self._losses[rival.number], rival.bar, rival.confidence)

    def tell(self, proposal_id: int, result: Mapping[str, Any] | None) -> None:
        """A trial's result; ``None`` means that its worker was lost."""
        if result is not None and result[LOSSES] is not None:
            self._losses[proposal_id] = result[LOSSES]
        if result is None or result[TRAINED] is None:
            self._search.tell(proposal_id, result)
            return
        self._networks.put(proposal_id, ray.get(result[TRAINED]))  # before the outcome is on record
        self._search.tell(proposal_id, result)
        self._log.settle()  # what goes now is not needed by the record as it is then
        self._networks.keep_only(self._choice.needed())
