"""A whole job on a real Ray: searched in several processes, removed for real, exported, and measured."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from pruners.errors import InvalidInput, JobFailed
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from searchers.base import Asked, Told
from tests.workers.logs import ListLog
from workers import arrays
from workers.data import load as load_data
from workers.device import CPU, has_bfloat16
from workers.evaluator import Evaluator
from workers.job import run_job
from workers.spec import JobSpec


def spec(**fields: object) -> JobSpec:
    return JobSpec.model_validate({"budget": {"ratio": 0.5}, "limits": {"max_trials": 30}, **fields})


@pytest.mark.usefixtures("cluster")
def test_a_job_from_start_to_end(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    run_job(spec(recovery={"final_epochs": 2}), *files, tmp_path, tmp_path / "networks", log)
    assert log.phases == ["running", "finishing", "succeeded"]
    assert log.baseline is not None
    assert log.best is not None
    assert log.best.macs <= log.baseline.macs // 2
    assert log.best.params < log.baseline.params
    assert log.best.size_bytes < log.baseline.size_bytes
    asked = [entry.proposal for entry in log.entries if isinstance(entry, Asked)]
    told = [entry for entry in log.entries if isinstance(entry, Told)]
    assert sorted(entry.proposal_id for entry in told) == [proposal.id for proposal in asked]
    assert set(log.began) == {proposal.id for proposal in asked}
    processes = {worker.pid for worker in log.workers if worker is not None}
    assert len(processes) == 2, "two trials at once, always in the same two processes"
    assert os.getpid() not in processes
    assert "epoch 2 of 2" in " ".join(log.messages)

    pt2 = tmp_path / "winner.pt2"
    pt2.write_bytes(log.artefacts["pt2"])
    network = build_module(read_program(pt2))
    assert sum(parameter.numel() for parameter in network.parameters()) == log.best.params
    test = load_data(files[1], 0).test
    with torch.inference_mode():
        correct = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in test.batches())
    assert correct / len(test) == log.best.metric

    weights, recipe = load(log.artefacts["safetensors"]), json.loads(log.artefacts["recipe"])
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    dense = build_module(read_program(files[0])).state_dict()
    for name, tensor in weights.items():
        shape = list(dense[name].shape)
        for dim, kept in recipe["keep"].get(name, {}).items():
            shape[int(dim)] = len(kept)
        assert list(tensor.shape) == shape


@pytest.mark.usefixtures("cluster")
def test_a_second_attempt_ends_as_the_first_would_have(files: tuple[Path, Path], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "resumed")]
    for folder in folders:
        folder.mkdir()
    # Each round cuts what the last one trained.
    asked = spec(searcher={"name": "netadapt"}, recovery={"short_steps": 2}, limits={"max_trials": 20})
    whole = ListLog()
    run_job(asked, *files, folders[0], folders[0] / "networks", whole)
    # Networks have to be made again, and another job has one of the two cores.
    resumed = ListLog(entries=whole.entries[: len(whole.entries) * 2 // 3], at_once=2)
    run_job(asked, *files, folders[1], folders[1] / "networks", resumed)
    assert len({worker.pid for worker in resumed.workers if worker is not None}) == 1
    proposals = [entry.proposal for entry in whole.entries if isinstance(entry, Asked)]
    assert len({proposal.parent for proposal in proposals}) > 2
    assert [entry.proposal for entry in resumed.entries if isinstance(entry, Asked)] == proposals
    assert resumed.trial == whole.trial
    for form in ("recipe", "safetensors"):
        assert resumed.artefacts[form] == whole.artefacts[form]
    kept = {int(file.stem) for file in (folders[0] / "networks").iterdir()}
    assert kept < {proposal.id for proposal in proposals}, "those of former rounds are gone"


@pytest.mark.usefixtures("cluster")
def test_a_trial_that_trains_hands_over_what_it_trained(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    asked = spec(searcher={"name": "fixed"}, pruner={"name": "agp", "params": {"epochs": 3}})
    run_job(asked, *files, tmp_path, tmp_path / "networks", log)
    assert [f"epoch {n} of 3" in message for n, message in enumerate(log.messages, 1)] == [True] * 3
    assert log.baseline is not None
    assert log.best is not None
    assert log.best.macs <= log.baseline.macs // 2
    assert log.planned == 1
    pt2 = tmp_path / "winner.pt2"
    pt2.write_bytes(log.artefacts["pt2"])
    network = build_module(read_program(pt2))
    data = load_data(files[1], 0)
    evaluator = Evaluator(files[0], data, asked)
    (told,) = [entry for entry in log.entries if isinstance(entry, Told)]
    assert evaluator.quality(network, data.search).metric == told.outcome.metric, "the very network that was judged"


@pytest.mark.usefixtures("cluster")
def test_a_winner_is_chosen_among_finalists_that_were_trained_and_trained_on(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    asked = spec(recovery={"final_epochs": 1, "finalists": 2}, limits={"max_trials": 12})
    run_job(asked, *files, tmp_path, tmp_path / "networks", log)
    proposals = [entry.proposal for entry in log.entries if isinstance(entry, Asked)]
    told = {entry.proposal_id: entry.outcome.score for entry in log.entries if isinstance(entry, Told)}
    assert [proposal.training is not None for proposal in proposals] == [False] * 10 + [True] * 2
    assert log.trial in (10, 11), "an epoch of training is worth more than anything that a search finds in so few trials"
    assert told[log.trial] == max(score for score in told.values() if score is not None)
    (message,) = log.messages
    assert message.startswith("Fine-tuning: epoch 1 of 1, loss ")


@pytest.mark.usefixtures("cluster")
def test_a_job_that_trains_shrinks_and_goes_on_from_there(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    params = {"rounds": 2, "admm_iterations": 2, "retrain_epochs": 1}
    asked = spec(searcher={"name": "autocompress", "params": params}, limits={"max_trials": 4})
    run_job(asked, *files, tmp_path, tmp_path / "networks", log)
    proposals = [entry.proposal for entry in log.entries if isinstance(entry, Asked)]
    outcomes = {entry.proposal_id: entry.outcome for entry in log.entries if isinstance(entry, Told)}
    assert not [outcome.error for outcome in outcomes.values() if outcome.error]
    first, second = [proposal for proposal in proposals if proposal.training is not None]
    assert (first.parent, second.parent) == (None, first.id)
    assert log.trial == second.id, "the last training beats every bare cut"
    assert "ADMM: epoch 2 of 2" in " ".join(log.messages)
    assert log.baseline is not None
    assert log.best is not None
    assert 0.45 < log.best.macs / log.baseline.macs <= 0.5
    pt2 = tmp_path / "winner.pt2"
    pt2.write_bytes(log.artefacts["pt2"])
    data = load_data(files[1], 0)
    quality = Evaluator(files[0], data, spec()).quality(build_module(read_program(pt2)), data.search)
    assert quality.metric == outcomes[second.id].metric, "the very network that was judged"


@pytest.mark.usefixtures("cluster")
def test_a_race_goes_on_in_a_second_attempt(files: tuple[Path, Path], tmp_path: Path) -> None:
    asked = spec(searcher={"name": "netadapt", "params": {"rounds": 1, "candidates": 20, "winners": 1, "racing": 0.9}})
    raced = ListLog()
    run_job(asked, *files, tmp_path, tmp_path / "networks", raced)
    told = [entry for entry in raced.entries if isinstance(entry, Told)]
    assert any(entry.outcome.metric is None and entry.outcome.score is not None for entry in told), "some end early"
    resumed = ListLog(entries=raced.entries[: len(raced.entries) // 2])  # the rivals' losses are found again
    (tmp_path / "second").mkdir()
    run_job(asked, *files, tmp_path / "second", tmp_path / "second networks", resumed)
    outcomes = [{e.proposal_id: e.outcome for e in log.entries if isinstance(e, Told)} for log in (raced, resumed)]
    assert outcomes[0] == outcomes[1]
    assert resumed.trial == raced.trial


@pytest.mark.usefixtures("cluster")
def test_a_ranking_over_all_groups_ends_on_the_budget(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    job = spec(searcher={"name": "fixed", "params": {"ranking": "global"}}, pruner={"name": "slim"})
    run_job(job, *files, tmp_path, tmp_path / "networks", log)
    (asked,) = [entry.proposal for entry in log.entries if isinstance(entry, Asked)]
    assert asked.note == "one threshold over all channels' scores"
    groups = Evaluator(files[0], load_data(files[1], 0), job).coupling.prunable
    assert len({width / group.width for width, group in zip(asked.widths, groups, strict=True)}) > 1, "not one fraction"
    assert log.best is not None
    assert log.baseline is not None
    assert 0.49 < log.best.macs / log.baseline.macs <= 0.5


@pytest.mark.usefixtures("cluster")
def test_a_job_of_sparsity_ends_with_zeros_in_its_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    budget = {"metric": "sparsity", "ratio": 0.8}
    resources = {"precision": "bfloat16"}  # of trials; the winner's figures are float32
    job = spec(budget=budget, searcher={"name": "fixed"}, pruner={"name": "level"}, resources=resources)
    run_job(job, *files, tmp_path, tmp_path / "networks", log)
    assert log.baseline is not None
    assert log.best is not None
    assert (log.best.macs, log.best.params) == (log.baseline.macs, log.baseline.params)
    weights = [tensor for name, tensor in load(log.artefacts["safetensors"]).items() if tensor.dim() > 1]
    total, zeros = sum(weight.numel() for weight in weights), sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == int(0.8 * total)
    assert log.best.budget_ratio == pytest.approx(1 - zeros / total)
    assert any("bfloat16" in told for told in log.messages) == (not has_bfloat16(CPU))


@pytest.mark.usefixtures("cluster")
def test_a_job_without_labels_reports_how_often_the_networks_agree(files: tuple[Path, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.npz"
    with np.load(files[1]) as found:
        np.savez(bare, **{name: found[name] for name in found if name.startswith("x_")})
    log = ListLog()
    job = spec(task={"type": "label_free"}, recovery={"final_epochs": 1}, limits={"max_trials": 4})
    run_job(job, files[0], bare, tmp_path, tmp_path / "networks", log)
    assert log.baseline is not None
    assert log.best is not None
    assert log.baseline.metric == 1
    assert 0.5 < log.best.metric < 1
    pt2 = tmp_path / "winner.pt2"
    pt2.write_bytes(log.artefacts["pt2"])
    dense, pruned = (build_module(read_program(path)) for path in (files[0], pt2))
    with torch.inference_mode():
        same = [dense(images).argmax(1) == pruned(images).argmax(1) for images, _ in load_data(bare, 0).test.batches()]
    assert log.best.metric == pytest.approx(float(torch.cat(same).double().mean()))


@pytest.mark.usefixtures("cluster")
def test_a_search_cut_short_says_why_there_is_no_network(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    cut_short = spec(searcher={"name": "sensitivity"}, limits={"max_trials": 30, "max_seconds": 1})
    with pytest.raises(JobFailed, match="within the budget"):
        run_job(cut_short, *files, tmp_path, tmp_path / "networks", log)
    assert "succeeded" not in log.phases


class Killing(ListLog):
    """Kills a trial's process, once, when it has had a trial and is at the next one or about to begin it.

    Attributes:
        began_before: the trials that had begun when it was lost.
    """

    began_before: Sequence[int] = ()

    def started(self, proposal_id: int) -> None:
        super().started(proposal_id)
        if len(self.workers) >= 2 and not self.losses and (worker := self.workers[0]) is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def lost(self, proposal_id: int, reason: str) -> None:
        super().lost(proposal_id, reason)
        self.began_before = list(self.began)


@pytest.mark.usefixtures("cluster")
def test_every_trial_ends_though_the_cluster_has_room_for_fewer_at_once(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.reuse.PATIENCE_SECONDS", 0.1)
    log = ListLog()
    asked = spec(searcher={"name": "random"}, limits={"max_trials": 7, "max_concurrent": 3})
    run_job(asked, *files, tmp_path, tmp_path / "networks", log)
    assert sum(isinstance(entry, Told) for entry in log.entries) == 7
    assert len({worker.pid for worker in log.workers if worker is not None}) == 2


@pytest.mark.usefixtures("cluster")
def test_a_trial_whose_process_is_killed_runs_again(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = Killing()
    job = spec(searcher={"name": "random"}, limits={"max_trials": 6})
    run_job(job, *files, tmp_path, tmp_path / "networks", log)
    ((lost, _),) = log.losses
    assert log.began.count(lost) == log.began_before.count(lost) + 1
    told = [entry for entry in log.entries if isinstance(entry, Told)]
    assert sorted(entry.proposal_id for entry in told) == list(range(6))
    assert all(entry.outcome.score is not None for entry in told)


@pytest.mark.usefixtures("cluster")
def test_a_job_that_is_asked_to_stop_keeps_its_best(files: tuple[Path, Path], tmp_path: Path) -> None:
    class Stopping(ListLog):
        def stopping(self) -> bool:
            return len(self.workers) >= 3

    log = Stopping()
    run_job(spec(searcher={"name": "random"}), *files, tmp_path, tmp_path / "networks", log)
    assert log.phases == ["running", "finishing", "succeeded"]
    told = [entry for entry in log.entries if isinstance(entry, Told)]
    assert len(told) == len(log.plans), "what ran was heard"
    assert 3 <= len(told) <= 5
    assert log.trial == max(told, key=lambda entry: (entry.outcome.score, -entry.proposal_id)).proposal_id


@pytest.mark.usefixtures("cluster")
def test_a_hopeless_job_fails_with_what_its_trials_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    log = ListLog()
    job = spec(searcher={"name": "random"}, pruner={"name": "apoz"}, limits={"max_trials": 6, "max_failed_trials": 2})
    wrong = tmp_path / "wrong"
    found = dict(np.load(files[1]))
    found["x_train"] = np.full_like(found["x_train"], np.nan)  # which no upload may hold
    arrays.write(wrong, {name: arrays.Column.of(array) for name, array in found.items()})
    with pytest.raises(JobFailed, match=r"trials failed \(limits.max_failed_trials\), the last with: "):
        run_job(job, files[0], wrong, tmp_path, tmp_path / "networks", log)
    assert log.phases == ["running"]


def test_an_impossible_job_is_refused_before_any_trial(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"budget\.ratio 0\.0001"):
        run_job(spec(budget={"ratio": 0.0001}), *files, tmp_path, tmp_path / "networks", ListLog())


def test_the_dense_network_scores_nought(files: tuple[Path, Path]) -> None:
    data = load_data(files[1], 0)
    evaluator = Evaluator(files[0], data, spec(recovery={"batchnorm_images": 0}))
    dense = [group.width for group in evaluator.coupling.prunable]
    assert evaluator.evaluate(dense).score == pytest.approx(0, abs=1e-6)  # the same sums, in the same order
    halved = evaluator.evaluate([width // 2 for width in dense])
    assert halved.score is not None
    assert halved.score < -0.01


def test_recalibration_helps_a_cut_network(files: tuple[Path, Path]) -> None:
    data = load_data(files[1], 0)
    raw, recalibrated = (Evaluator(files[0], data, spec(recovery={"batchnorm_images": images})) for images in (0, 256))
    widths = [group.width * 3 // 4 for group in raw.coupling.prunable]
    before, after = raw.evaluate(widths).score, recalibrated.evaluate(widths).score
    assert before is not None
    assert after is not None
    assert after > before


def test_least_squares_helps_a_cut_network(files: tuple[Path, Path]) -> None:
    data = load_data(files[1], 0)
    plain, solved = (Evaluator(files[0], data, spec(recovery={"least_squares": wanted})) for wanted in (False, True))
    widths = [group.width // 2 for group in plain.coupling.prunable]
    before, after = plain.evaluate(widths).score, solved.evaluate(widths).score
    assert before is not None
    assert after is not None
    assert after > before
    cut = plain.prune(widths)
    again = solved.prune([max(1, width * 3 // 4) for width in widths], cut)  # of a network that was cut before
    assert all(set(few) <= set(many) for few, many in zip(again.keep, cut.keep, strict=True))


def test_a_plan_that_breaks_is_a_failed_outcome(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(files[0], load_data(files[1], 0), spec())

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory\nand a long trace")

    monkeypatch.setattr(evaluator, "prune", out_of_memory)
    outcome = evaluator.evaluate([group.width for group in evaluator.coupling.prunable])
    assert outcome.score is None
    assert outcome.error == "RuntimeError: out of memory"
