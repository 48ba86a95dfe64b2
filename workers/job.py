"""One compression job from start to end: plan ▸ search under Ray Tune ▸ finish the winner ▸ export."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial
from torch import Tensor

from pruners.errors import JobFailed
from pruners.graph.groups import Indices
from pruners.graph.shrink import shrink
from pruners.latency import measure_latency
from searchers.base import Proposal
from searchers.space import SearchSpace
from searchers.tune import PROPOSAL, AskTell
from workers.data import Splits, load
from workers.evaluator import Evaluator
from workers.export import export_all, export_pt2
from workers.log import Artefact, JobLog, Measurement
from workers.plan import make_searcher
from workers.reuse import keeping_actors
from workers.search import RecordedSearch
from workers.spec import JobSpec
from workers.trainable import REPORT, TRAINED, PruningTrial
from workers.training import fine_tune

LOST_WORKER_RETRIES = 3  # a trial whose worker dies runs again this often before it counts as failed

# Tune's own result files and progress reports cost 15 ms a trial and tell nothing that the job's log does not.
_QUIET_TUNE = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "3600"}


def run_job(spec: JobSpec, model: Path, data: Path, workdir: Path, log: JobLog) -> None:
    """Runs a job to its end on the Ray cluster that this process belongs to, or on a local one.

    Args:
        spec: what is asked.
        model: the ``.pt2`` file.
        data: the ``.npz`` file.
        workdir: an empty folder for this attempt.
        log: told of everything as it happens; holds the record of earlier attempts.

    Raises:
        InvalidInput: the spec does not fit the model or the data.
        JobFailed: no network within the budget was found.
    """
    splits = load(data, spec.seed)
    evaluator = Evaluator(model, splits, spec)
    space = evaluator.space()
    searcher = make_searcher(space, spec)
    search = RecordedSearch(searcher, log, lambda proposal: evaluator.plan(proposal.widths), spec.limits)
    log.running(min(searcher.planned_trials, spec.limits.max_trials))
    watch = _Watch(log)
    _search(spec, model, splits, workdir, search, watch)
    winner = search.best(space.fits)
    if winner is None:
        raise JobFailed(_why_none(search, space))
    log.finishing()
    _finish(spec, evaluator, space, splits, winner, watch.trained.get(winner.id), workdir, log)


class _Watch(tune.Callback):
    """Tells the log when a worker takes a trial up and how its training goes, and fetches what it trained.

    Attributes:
        trained: by proposal the kept indices and the weights; the worker that trained them may be gone soon.
    """

    def __init__(self, log: JobLog) -> None:
        self._log = log
        self.trained: dict[int, tuple[list[Indices], dict[str, Tensor]]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Tune pickles it for a restore that never comes; see ``searchers.tune.AskTell``."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: object) -> None:
        self._log.started(trial.config[PROPOSAL])

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: object) -> None:
        """Called with every result, the last one too."""
        if REPORT in result:
            self._log.progress(result[REPORT])
        if result.get(TRAINED) is not None:
            self.trained[trial.config[PROPOSAL]] = ray.get(result[TRAINED])


def _search(spec: JobSpec, model: Path, splits: Splits, workdir: Path, search: RecordedSearch, watch: _Watch) -> None:
    os.environ.update(_QUIET_TUNE)
    # It looks for each trial's result file at the end, and warns of every one that was not written.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    trainable: Any = tune.with_resources(
        tune.with_parameters(PruningTrial, model=model, data=splits, spec=spec),
        {"cpu": spec.resources.cpus, "gpu": spec.resources.gpus},
    )
    # Tune wraps the class; the dashboard lists its actors under this name.
    trainable.__name__ = trainable.__qualname__ = PruningTrial.__name__
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=AskTell(search.ask, search.tell),
            num_samples=-1,
            max_concurrent_trials=spec.limits.max_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(workdir),
            verbose=0,
            callbacks=[watch],
            failure_config=tune.FailureConfig(max_failures=LOST_WORKER_RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with keeping_actors(spec.limits.max_concurrent):
        tuner.fit()


def _finish(
    spec: JobSpec,
    evaluator: Evaluator,
    space: SearchSpace,
    splits: Splits,
    winner: Proposal,
    trained: tuple[list[Indices], dict[str, Tensor]] | None,
    workdir: Path,
    log: JobLog,
) -> None:
    torch.set_num_threads(spec.resources.cpus)
    if trained is None:  # or trained by an attempt whose process is gone: the same training again
        pruned = evaluator.prune(winner.widths, log.progress)
        network, keep = pruned.network, pruned.keep
    else:
        keep, weights = trained
        network = shrink(evaluator.dense, evaluator.coupling, keep)
        network.load_state_dict(weights)
    if spec.recovery.final_epochs:
        tuned = shrink(evaluator.dense, evaluator.coupling, keep)
        tuned.load_state_dict(network.state_dict())
        fine_tune(evaluator.trainer(tuned), spec.recovery.final_epochs, log.progress)
        before, after = (evaluator.quality(each, splits.search) for each in (network, tuned))
        if after.divergence <= before.divergence or after.accuracy > before.accuracy:
            network = tuned
        else:
            log.progress("Fine-tuning made the network worse on the search images; the network before it is kept.")
    dense_file = workdir / "dense.pt2"
    export_pt2(evaluator.dense, dense_file)
    artefacts = export_all(network, evaluator.coupling, keep, evaluator.channels(winner.widths), workdir)
    example = evaluator.dense.meta["inputs"][0].example(1)
    latencies = measure_latency([(evaluator.dense, example), (network, example)])
    baseline, best = (
        Measurement(
            metric=evaluator.quality(module, splits.test).accuracy,
            macs=evaluator.plan(widths).macs,
            params=evaluator.plan(widths).params,
            size_bytes=file.stat().st_size,
            latency_ms=latency.median_ms,
            budget_ratio=space.cost(widths) / space.cost(space.dense),
        )
        for module, widths, file, latency in (
            (evaluator.dense, space.dense, dense_file, latencies[0]),
            (network, winner.widths, _file(artefacts, "pt2"), latencies[1]),
        )
    )
    log.succeeded(winner.id, baseline, best, artefacts)


def _file(artefacts: list[Artefact], wanted: str) -> Path:
    return next(artefact.path for artefact in artefacts if artefact.format == wanted)


def _why_none(search: RecordedSearch, space: SearchSpace) -> str:
    failed = [outcome.error for outcome in search.outcomes.values() if outcome.error]
    if failed and len(failed) == len(search.outcomes):
        return f"Every one of {len(failed)} trials failed; the first said: {failed[0]}"
    return (
        f"None of the {len(search.outcomes)} trials that ended was within the budget of {space.budget.limit:,} "
        f"{space.budget.metric}; raise limits.max_seconds or limits.max_trials so that the search can get there."
    )
