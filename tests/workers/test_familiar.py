"""A job says where its search inputs are those that the dense network was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from tests.workers.logs import ListLog
from workers.data import load as load_data
from workers.familiar import familiar
from workers.job import run_job
from workers.spec import JobSpec


@pytest.mark.parametrize(
    ("search", "test", "sizes", "told"),
    [
        (1.0, 0.942, (512, 517), True),  # ResNet-56 on images that it was trained on
        (1.0, 0.942, (20, 517), False),  # twenty may all be right by chance
        (1.0, 0.9975, (400, 400), False),
        (1.0, 1.0, (400, 400), False),
        (0.0, 0.0, (400, 400), False),
        (0.90, 0.95, (512, 517), False),  # worse on the search inputs
        (0.76, 0.70, (50_000, 10_000), True),
    ],
)
def test_a_difference_beyond_chance_is_told(search: float, test: float, sizes: tuple[int, int], told: bool) -> None:
    found = familiar(search, sizes[0], test, sizes[1])
    assert (found is not None) == told
    if found is not None:
        assert f"{search:.1%} of the search inputs" in found
        assert f"{test:.1%} of the test inputs" in found
        assert "x_val" in found


def test_alike_inputs_are_told_apart_once_in_a_thousand_jobs() -> None:
    random = np.random.default_rng(0)
    rights = random.binomial(500, 0.9, (20_000, 2)) / 500
    assert sum(familiar(search, 500, test, 500) is not None for search, test in rights) == pytest.approx(20, abs=15)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("known", [True, False])
def test_a_job_ends_by_saying_so(files: tuple[Path, Path], tmp_path: Path, known: bool) -> None:
    with np.load(files[1]) as found:
        arrays = dict(found)
    dense, test = build_module(read_program(files[0])), load_data(files[1], 0).test
    with torch.inference_mode():
        answers = torch.cat([dense(images).argmax(1) for images, _ in test.batches()]).numpy()
    arrays["x_val"] = arrays["x_test"]
    arrays["y_val"] = answers if known else arrays["y_test"]  # all right, or as many as of the test inputs
    arrays["y_test"] = np.where(np.arange(len(answers)) % 4 == 0, (answers + 1) % 10, answers) if known else arrays["y_test"]
    np.savez(tmp_path / "data.npz", **arrays)
    log = ListLog()
    job = JobSpec.model_validate({"budget": {"ratio": 0.5}, "searcher": {"name": "uniform"}})
    run_job(job, files[0], tmp_path / "data.npz", tmp_path, tmp_path / "networks", log)
    said = [message for message in log.messages if "x_val" in message]
    assert len(said) == known
    assert all("100.0% of the search inputs and 75.0% of the test inputs" in message for message in said)
