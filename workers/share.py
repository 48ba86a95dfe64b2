"""How many trials a job may run at once: all that it asks for, or its part of a cluster that other jobs are on."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray

from workers.spec import JobSpec

_SECONDS = 1.0  # between two looks at who else is there: a trial takes about as long


class Share:
    """Trials that a job may run at once as things are now, so that as many jobs as there are find room; one at least.

    Args:
        spec: what a trial takes, and the most that the job asks for.
        jobs: how many there are on the cluster, this one included.
        clock: seconds.
    """

    def __init__(self, spec: JobSpec, jobs: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._jobs = jobs
        self._clock = clock
        self._looked = -_SECONDS
        self._trials = 1

    def __call__(self) -> int:
        """Asked before every trial; it looks anew once in a while."""
        if self._clock() - self._looked >= _SECONDS:
            self._looked = self._clock()
            self._trials = self._now()
        return self._trials

    def _now(self) -> int:
        most, jobs = self._spec.limits.max_concurrent, self._jobs()
        if jobs == 1:  # what Ray finds no room for yet may come
            return most
        there, resources = ray.cluster_resources(), self._spec.resources
        wanted = {"CPU": float(resources.cpus), "GPU": resources.gpus}
        room = min(there.get(kind, 0.0) / each for kind, each in wanted.items() if each)
        return max(1, min(most, int(room / jobs)))
