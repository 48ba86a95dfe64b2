"""A job's part of a cluster."""

from __future__ import annotations

import pytest
import ray

from searchers.base import Proposal
from searchers.tune import AskTell
from workers.reuse import _KeepingCache
from workers.share import Share
from workers.spec import JobSpec


@pytest.mark.parametrize(
    ("resources", "most", "jobs", "trials"),
    [
        ({}, 4, 1, 4),
        ({}, 99, 1, 99),
        ({}, 99, 2, 8),
        ({}, 99, 3, 5),
        ({}, 4, 2, 4),
        ({}, 99, 40, 1),
        ({"cpus": 3}, 99, 2, 2),
        ({"gpus": 0.5}, 99, 2, 2),
        ({"gpus": 1}, 99, 2, 1),
    ],
)
def test_all_alone_or_an_even_part(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], most: int, jobs: int, trials: int
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 2.0})
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "limits": {"max_concurrent": most}, "resources": resources})
    assert Share(spec, lambda: jobs)() == trials


def test_it_looks_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0})
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "limits": {"max_concurrent": 99}})
    now, jobs = [0.0], iter([1, 2, 4])
    share = Share(spec, lambda: next(jobs), lambda: now[0])
    found = []
    for seconds in (0.0, 0.9, 1.0, 1.9, 2.1):
        now[0] = seconds
        found.append(share())
    assert found == [99, 99, 8, 8, 4]


def test_trials_that_are_too_many_are_not_handed_out() -> None:
    """Another job comes while three trials run: the next one starts once two of them have ended."""
    most, numbers, told = [3], iter(range(9)), list[int]()
    tune = AskTell(
        lambda: Proposal(next(numbers), (1,)),
        lambda number, _: told.append(number),
        lambda _: None,
        lambda _: None,
        lambda: most[0],
    )
    assert [tune.suggest(f"trial {number}") is not None for number in range(4)] == [True, True, True, False]
    most[0] = 2
    tune.on_trial_complete("trial 0", {})
    assert (tune.suggest("trial 4"), tune.running()) == (None, 2)
    tune.on_trial_complete("trial 1", {})
    assert tune.suggest("trial 4") is not None
    assert told == [0, 1]


def test_processes_that_are_too_many_are_let_go_and_others_kept_until_the_end() -> None:
    most, running = [3], [0]
    cache = _KeepingCache(lambda: most[0], lambda: running[0])
    for process in ("a", "b", "c"):
        assert cache.cache_object("resources", process)
    assert list(cache.flush_cached_objects()) == []
    running[0], most[0] = 1, 3
    assert cache.pop_cached_object("resources") == "a"
    assert list(cache.flush_cached_objects()) == []
    most[0] = 2
    assert list(cache.flush_cached_objects()) == ["b"]
    assert list(cache.flush_cached_objects()) == []
    assert list(cache.flush_cached_objects(force_all=True)) == ["c"]
