"""As many living trial processes as trials may run at once, in every round.

Stock Ray Tune, asked to reuse actors, keeps a single idle one, and lets a freed actor take the trial of another that is
still starting, which is then killed. Rounds of short trials so collapse onto one process while others are started in vain
(measured: 46 to 51 % of two workers' time spent on trials; with this, both work throughout).

A process that the cluster has no room for, since a node was lost or fewer are there than the job asked for, is another
matter: its trial takes a free actor after some seconds, or it would wait for a node that may never come.

This reaches into a private class of one version of Ray; with any other version the stock behaviour stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

KNOWN_VERSION = "2.60.0"

PATIENCE_SECONDS = 3.0
"""In which Ray finds room for a process if there is any; it takes milliseconds, on a crowded machine a second."""


@contextmanager
def keeping_actors(most: Callable[[], int], running: Callable[[], int]) -> Iterator[None]:
    """Within it, Tune runs keep idle actors, and a trial whose own actor is starting waits for it.

    Args:
        most: actors that there may be, idle ones included; asked again and again.
        running: trials that have one.
    """
    if ray.__version__ != KNOWN_VERSION:
        yield
        return
    stock = tune.TuneController
    tune.TuneController = _controller(most, running)
    try:
        yield
    finally:
        tune.TuneController = stock


class _KeepingCache(_ObjectCache):
    """Keeps every idle actor until the search is over, but for those that are too many by then."""

    def __init__(self, most: Callable[[], int], running: Callable[[], int]) -> None:
        super().__init__()
        self._most = most
        self._running = running

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keeps an actor; of too many ``flush_cached_objects`` lets some go."""
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Lets all of them go, at the end; before, those that are too many."""
        if force_all:
            yield from super().flush_cached_objects(force_all=True)
            return
        too_many = self._num_cached_objects + self._running() - self._most()
        for objects in self._cached_objects.values():
            for _ in range(min(too_many, len(objects))):
                self._num_cached_objects -= 1
                too_many -= 1
                yield objects.pop(0)


def _controller(most: Callable[[], int], running: Callable[[], int]) -> type[TuneController]:
    class KeepingController(TuneController):
        """A controller with that cache, whose actors are not taken from trials that wait for them to start."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._actor_cache = _KeepingCache(most, running)
            self._homeless: dict[Any, float] = {}  # actors that Ray finds no room for, and since when

        def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
            own = self._trial_to_actor.get(trial)
            if own is not None and trial not in self._resetting_trials and not self._in_vain(own):
                return False
            return bool(super()._maybe_reuse_cached_actor(trial))

        def _in_vain(self, actor: Any) -> bool:
            pending = self._actor_manager.pending_actors
            self._homeless = {each: since for each, since in self._homeless.items() if each in pending}
            if actor not in pending:
                return False
            return time.monotonic() - self._homeless.setdefault(actor, time.monotonic()) > PATIENCE_SECONDS

    return KeepingController
