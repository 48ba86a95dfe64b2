"""A handful of what ``make chaos`` does: each kind of process is killed once under a running job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import chaos


@pytest.mark.timeout(900)  # a busy machine takes up to a minute for a new head
def test_a_job_outlives_everything_that_works_at_it(tmp_path: Path) -> None:
    targets = ["worker", "api", "job", "head"]
    report = chaos(tmp_path, seed=0, targets=targets, searches=["random"], trials=100, gap=(1, 3), seconds=600)
    assert report.kills == dict.fromkeys(targets, 1)
    assert report.faults == []
    assert (report.jobs_lost, report.trials_lost_or_doubled, report.other_plans) == (0, 0, 0)
