"""Pruners that train: what a trial of ``searcher: fixed`` does with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pruners.errors import InvalidInput
from workers.background import Background
from workers.data import load
from workers.evaluator import Evaluator
from workers.inspection import catalogue
from workers.plan import make_searcher
from workers.schedules.base import SCHEDULES
from workers.spec import JobSpec, Recovery

SHORT = {
    "agp": {"epochs": 3},
    "linear": {"epochs": 3},
    "admm": {"iterations": 2, "epochs": 1},
    "lottery_ticket": {"rounds": 2, "epochs": 1},
}
EPOCHS = {"agp": 3, "linear": 3, "admm": 2, "lottery_ticket": 2}


def spec(name: str, params: dict[str, object], searcher: str = "fixed") -> JobSpec:
    return JobSpec.model_validate(
        {"budget": {"ratio": 0.3}, "searcher": {"name": searcher}, "pruner": {"name": name, "params": params}}
    )


def planned(evaluator: Evaluator, of: JobSpec) -> tuple[int, ...]:
    space = evaluator.space()
    widths: tuple[int, ...] = make_searcher(space, of).ask().widths
    return widths


def test_every_schedule_is_tested() -> None:
    assert set(SHORT) == set(SCHEDULES)


@pytest.mark.parametrize("name", SHORT)
def test_a_schedule_trains_and_ends_on_the_budget(name: str, files: tuple[Path, Path]) -> None:
    asked = spec(name, SHORT[name])
    evaluator = Evaluator(files[0], load(files[1], 0), asked)
    before = {key: tensor.clone() for key, tensor in evaluator.dense.state_dict().items()}
    widths = planned(evaluator, asked)
    reports: list[str] = []
    outcome, pruned = evaluator.evaluate_keeping(widths, report=reports.append)
    assert pruned is not None
    assert len(reports) == EPOCHS[name]
    assert "epoch" in reports[-1]
    assert sum(parameter.numel() for parameter in pruned.network.parameters()) == evaluator.coupling.cost("params", widths)
    assert not [key for key in pruned.network.state_dict() if key.endswith("_mask")]
    assert all(torch.equal(before[key], tensor) for key, tensor in evaluator.dense.state_dict().items())
    again, _ = evaluator.evaluate_keeping(widths)
    assert again == outcome, "the same seed trains the same network"


@pytest.mark.parametrize("name", ["agp", "linear", "lottery_ticket"])
def test_training_while_pruning_beats_the_bare_cut(name: str, files: tuple[Path, Path]) -> None:
    data = load(files[1], 0)
    bare = spec("l1", {}).model_copy(update={"recovery": Recovery(least_squares=False)})
    cut = Evaluator(files[0], data, bare)
    trained = Evaluator(files[0], data, spec(name, SHORT[name]))
    widths = planned(cut, bare)
    before, after = cut.evaluate(widths).score, trained.evaluate(widths).score
    assert before is not None
    assert after is not None
    assert after > before / 2  # scores are negative: at most half as far from the dense network's outputs


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (spec("agp", {}, searcher="netadapt"), r"^searcher\.name 'netadapt' cannot run agp, a schedule that trains"),
        (
            spec("agp", {}).model_copy(update={"recovery": Recovery(least_squares=True)}),
            r"^recovery\.least_squares True finds nothing to make up for behind agp",
        ),
        (
            spec("agp", {}).model_copy(update={"recovery": Recovery(finalists=2)}),
            r"^recovery\.finalists 2 has nothing to choose from behind agp, whose one trial trains; leave it out\.$",
        ),
        (spec("agp", {"epochs": 1}), r"^pruner\.params\.epochs 1 should be greater than or equal to 2\.$"),
        (spec("admm", {"speed": 1}), r"^pruner\.params\.speed 1 is not a known field"),
    ],
)
def test_what_a_schedule_cannot_do_is_said_before_it_begins(asked: JobSpec, sentence: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        Evaluator(files[0], load(files[1], 0), asked)


def test_the_catalogue_tells_schedules_from_criteria() -> None:
    schedules = {entry["name"] for entry in catalogue()["pruners"] if entry["schedule"]}
    assert schedules == set(SHORT)


def test_work_in_the_background_reports_line_by_line_and_keeps_its_end() -> None:
    fine = Background(lambda report: [report(line) for line in ("a", "b")] and 42)
    assert [fine.report(), fine.report(), fine.report()] == ["a", "b", None]
    assert fine.result() == 42

    def fails(_: object) -> None:
        raise ValueError("no")

    broken = Background(fails)
    assert broken.report() is None
    with pytest.raises(ValueError, match="no"):
        broken.result()
