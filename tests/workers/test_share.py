"""A job's part of a cluster."""

from __future__ import annotations

import pytest
import ray

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
