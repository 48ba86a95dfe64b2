"""Jobs for several sizes and jobs for the smallest network that keeps its accuracy, from start to end; and replays of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruners.errors import JobFailed
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from searchers.base import Asked, Told
from tests.workers.logs import ListLog
from workers.constraint import drop_bound
from workers.data import load
from workers.evaluator import Evaluator
from workers.job import run_job
from workers.spec import JobSpec

pytestmark = pytest.mark.usefixtures("cluster")


def run(files: tuple[Path, Path], folder: Path, **fields: object) -> ListLog:
    log = ListLog()
    spec = JobSpec.model_validate({"exports": {"onnx": False}, **fields})
    run_job(spec, *files, folder, folder / "networks", log)
    return log


def test_the_smallest_network_that_is_certain_to_keep_its_accuracy(files: tuple[Path, Path], tmp_path: Path) -> None:
    constraint = {"max_metric_drop": 0.05}
    log = run(files, tmp_path, constraint=constraint, searcher={"name": "uniform"}, limits={"max_trials": 18})
    outcomes = {entry.proposal_id: entry.outcome for entry in log.entries if isinstance(entry, Told)}
    assert all(outcome.drop is not None for outcome in outcomes.values())
    costs = [network.measured.macs for network in log.networks]
    assert costs == sorted(costs), "the smallest first, and the larger ones that were confirmed on the way"
    spec = JobSpec.model_validate({"constraint": constraint})
    splits = load(files[1], 0)
    evaluator = Evaluator(files[0], splits, spec)
    for number, network in enumerate(log.networks):
        assert network.measured.max_drop is not None
        assert network.measured.max_drop <= 0.05
        pruned = build_module(read_program(next(a.path for a in network.artefacts if a.format == "pt2")))
        quality = evaluator.quality(pruned, splits.test)
        assert quality.drops is not None
        assert drop_bound(quality.drops) == pytest.approx(network.measured.max_drop), number
        assert quality.metric == network.measured.metric
    assert log.baseline is not None
    assert log.best is not None
    assert log.best.macs < log.baseline.macs


def test_a_network_for_a_budget_is_held_to_the_constraint(files: tuple[Path, Path], tmp_path: Path) -> None:
    asked = {"searcher": {"name": "uniform"}, "recovery": {"least_squares": False}}
    with pytest.raises(JobFailed, match=r"within the budget \(\d+\.\d% of the dense cost\) lost .* on 400 test inputs"):
        run(files, tmp_path, budget={"ratio": 0.05}, constraint={"max_metric_drop": 0.01}, **asked)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    impossible = {"max_metric_drop": 1e-9}
    with pytest.raises(JobFailed, match=r"No network that was tried kept the metric|least pruned network that was tried"):
        run(files, nothing, constraint=impossible, limits={"max_trials": 10}, searcher={"name": "fixed"})


def test_every_size_of_a_list_gets_its_network(files: tuple[Path, Path], tmp_path: Path) -> None:
    sizes = [{"ratio": 0.3}, {"ratio": 0.6}]
    log = run(files, tmp_path, budget=sizes, searcher={"name": "uniform"}, recovery={"final_epochs": 1})
    assert [round(network.measured.budget_ratio, 1) for network in log.networks] == [0.6, 0.3]
    assert log.best == log.networks[0].measured
    assert [message.partition(":")[0] for message in log.messages] == ["Fine-tuning"] * 2
    numbers = [entry.proposal.id for entry in log.entries if isinstance(entry, Asked)]
    assert {network.trial for network in log.networks} <= set(numbers)


def test_what_no_other_network_beats_is_kept_beside_the_winner(files: tuple[Path, Path], tmp_path: Path) -> None:
    asked = {"budget": {"ratio": 0.4}, "searcher": {"name": "netadapt"}, "limits": {"max_trials": 24}}
    log = run(files, tmp_path, **asked)
    assert log.best is not None
    assert log.best.budget_ratio <= 0.4
    ratios = [network.measured.budget_ratio for network in log.networks]
    assert len(ratios) > 1
    assert all(abs(one - other) >= 0.1 for n, one in enumerate(ratios) for other in [*ratios[:n], 1.0])
    scores = {entry.proposal_id: entry.outcome.score for entry in log.entries if isinstance(entry, Told)}
    larger = sorted(zip(ratios, [scores[network.trial] for network in log.networks], strict=True))
    assert [score for _, score in larger] == sorted(score for _, score in larger if score is not None)
    network = log.networks[1]
    assert network.tuned == 0
    pruned = build_module(read_program(next(a.path for a in network.artefacts if a.format == "pt2")))
    assert sum(parameter.numel() for parameter in pruned.parameters()) == network.measured.params
