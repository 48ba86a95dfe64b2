"""One compression job from start to end: plan ▸ search under Ray Tune ▸ finish the winner ▸ export."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.experiment import Trial

from pruners.cost import LATENCY
from pruners.errors import JobFailed
from pruners.latency import Latency
from searchers.base import Proposal
from searchers.space import SearchSpace, Widths
from searchers.tune import PARENT, PROPOSAL, AskTell
from workers.choice import Choice
from workers.data import load
from workers.device import prepare, unrounded
from workers.evaluator import Evaluator
from workers.finish import Finish
from workers.latency import InTime, on_a_worker, time_plans
from workers.log import JobLog, Plan
from workers.networks import Networks
from workers.plan import make_searcher, sizes_of
from workers.results import Results
from workers.reuse import keeping_actors
from workers.search import RecordedSearch
from workers.share import Share
from workers.spec import LATENCY_MS, JobSpec
from workers.trainable import REPORT, PruningTrial
from workers.weight_evaluator import make_evaluator

# Tune's own result files and progress reports cost 15 ms a trial and tell nothing that the job's log does not.
_QUIET_TUNE = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "3600"}


def run_job(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
    """Runs a job to its end on the Ray cluster that this process belongs to, or on a local one.

    Args:
        spec: what is asked.
        model: the ``.pt2`` file.
        data: its arrays, or an upload; see ``workers.data.load``.
        workdir: an empty folder for this attempt.
        networks: a folder that all attempts share, for networks that trials start from; what was in it need not be.
        log: told of everything as it happens; holds the record of earlier attempts.

    Raises:
        InvalidInput: the spec does not fit the model or the data.
        JobFailed: no network within the budget was found.
    """
    prepare(spec.resources)
    splits = load(data, spec.seed)
    evaluator = make_evaluator(model, splits, spec)
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    sent = np.fromfile(model, np.uint8)
    in_time = InTime(spec, sent, evaluator, log) if spec.metric == LATENCY_MS else None
    space = evaluator.space(None if in_time is None else in_time.cost)
    trains = evaluator.schedule is not None or spec.recovery.short_steps > 0
    known = log.known() if spec.resources.reuse and not trains else {}
    if spec.minimises:  # which asks more of an outcome than other jobs find out
        known = {widths: outcome for widths, outcome in known.items() if outcome.drop is not None}
    searcher = make_searcher(space, spec)
    search = RecordedSearch(searcher, log, lambda proposal: _plan(evaluator, in_time, proposal), spec.limits, known)
    choice = Choice(spec, search, space, [size.fits for size in sizes_of(space, spec)])
    log.running(search.planned_trials)
    if (told := unrounded(spec)) is not None:
        log.progress(told)
    trained = Networks(networks, evaluator, search.proposals, log.progress)

    results = Results(search, choice, trained, evaluator, splits.search, log)
    asks = AskTell(search.ask, results.tell, trained.reference, results.race, Share(spec, log.jobs))
    parameters = {
        "model": sent,
        "data": splits,
        "spec": spec,
        "found": evaluator.found,
        "races": searcher.names_rivals,
    }
    run_trials(spec, PruningTrial, parameters, asks, workdir, log)
    if search.hopeless:
        raise JobFailed(
            f"{len(search.failures)} trials failed (limits.max_failed_trials), the last with: {search.failures[-1]}"
        )
    if not choice.winners():
        raise JobFailed(_why_none(search, space, log))
    log.finishing()

    def on_workers(plans: Sequence[Widths]) -> Sequence[Latency]:
        channels = [evaluator.channels(widths) for widths in plans]
        return on_a_worker(spec.resources, time_plans, sent, spec.resources, channels)

    timed = on_workers if spec.resources.gpus or in_time is not None else None
    finish = Finish(spec, evaluator, space, splits, trained.get, timed, workdir, networks, log)
    if spec.minimises:
        finish.smallest(search.ladder)
    elif in_time is not None:
        winner, others, latencies = in_time.best(search.ranked(space.fits), lambda proposal: choice.others([proposal]))
        finish.budgets([winner], others, latencies)
    else:
        winners = choice.winners()
        finish.budgets(winners, choice.others(winners))


def _plan(evaluator: Evaluator, in_time: InTime | None, proposal: Proposal) -> Plan:
    plan = evaluator.plan(proposal.widths)
    return plan if in_time is None else replace(plan, latency_ns=in_time.cost(LATENCY, proposal.widths))


class _Watch(tune.Callback):
    """Tells the log when a worker takes a trial up and how its training goes, and when there is time to write it down."""

    def __init__(self, log: JobLog) -> None:
        self._log = log

    def __getstate__(self) -> dict[str, object]:
        """Tune pickles it for a restore that never comes; see ``searchers.tune.AskTell``."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **_: object) -> None:
        """Called behind every event, and ten times a second where there are none."""
        self._log.tick()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: object) -> None:
        self._log.started(trial.config[PROPOSAL])

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: object) -> None:
        """Called with every result, the last one too."""
        if REPORT in result:
            self._log.progress(result[REPORT])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: object) -> None:
        trial.config[PARENT] = None  # Tune keeps the configs of all trials, and would keep their parents' weights so


def run_trials(
    spec: JobSpec,
    trial: type[tune.Trainable],
    parameters: Mapping[str, Any],
    search: AskTell,
    workdir: Path,
    log: JobLog,
) -> None:
    """Runs a search's trials under Ray Tune until it is over.

    Args:
        spec: says how many trials run at once, at most, and what each takes of a worker.
        trial: what runs one; the dashboard shows its name.
        parameters: what its ``setup`` gets besides the config; sent to each node once.
        search: asks for trials and is told of them, and says how many may run now; processes stay for as many.
        workdir: where Tune may write.
        log: told when trials start and how their training goes.
    """
    os.environ.update(_QUIET_TUNE)
    # It looks for each trial's result file at the end, and warns of every one that was not written.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    trainable: Any = tune.with_resources(
        tune.with_parameters(trial, **parameters),
        {"cpu": spec.resources.cpus, "gpu": spec.resources.gpus},
    )
    # Tune wraps the class; the dashboard lists its actors under this name.
    trainable.__name__ = trainable.__qualname__ = trial.__name__
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,
            max_concurrent_trials=spec.limits.max_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(workdir),
            verbose=0,
            callbacks=[_Watch(log)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with keeping_actors(search.most, search.running), log.together():
        tuner.fit()


def _why_none(search: RecordedSearch, space: SearchSpace, log: JobLog) -> str:
    failed = search.failures
    if failed and len(failed) == len(search.outcomes):
        return f"Every one of {len(failed)} trials failed; the first said: {failed[0]}"
    remedy = "raise limits.max_seconds or limits.max_trials so that the search can get there"
    if log.stopping():
        remedy = "the search was asked to stop before it got there"
    return f"None of the {len(search.outcomes)} trials that ended was within the budget of {space.budget.shown}; {remedy}."
