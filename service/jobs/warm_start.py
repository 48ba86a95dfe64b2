"""Warm starts: a job that begins with what an earlier one found out, ``searcher.params.warm_start``.

The earlier job's trials are copied into the new one when it is made. From then on they are its own: nothing that happens to the
earlier job matters, and every attempt's search is given the same.
"""

from __future__ import annotations

from typing import Any

from pruners.cost import CostModel
from pruners.errors import InvalidInput
from service.database.tables import Dataset, Job, Model, Trial
from service.jobs.repository import JobRepository
from service.problems import NotFound
from workers.plan import make_space, ranks_globally
from workers.spec import SCORING, JobSpec, Recipe, Recovery

FIELD = "searcher.params.warm_start"


def earlier_trials(spec: JobSpec, model: Model, dataset: Dataset, jobs: JobRepository) -> list[Trial]:
    """The successful trials of the job that a valid specification names, not yet of any job; none if it names none.

    Trials of networks that other trials had trained are left out: what came of them says nothing of a cut of the dense network.
    So are those that ended early, whose scores are estimates.

    Raises:
        InvalidInput: there is no such job, no such trial of it succeeded, or its scores do not compare with the new job's.
    """
    name = spec.searcher.params.get("warm_start")
    if name is None:
        return []
    try:
        job = jobs.get(name)
    except NotFound as error:
        raise InvalidInput(FIELD, name, "is no job; GET /jobs lists those there are") from error
    if (reason := difference(spec, model, dataset, job)) is not None:
        raise InvalidInput(FIELD, name, f"{reason}, so that its scores do not compare; name another job or leave it out")
    trials = jobs.trials_of([job]).get(job.id, [])
    found = [
        trial
        for trial in trials
        if trial.score is not None and trial.metric is not None and trial.parent is None and trial.training is None
    ]
    if not found:
        raise InvalidInput(FIELD, name, f"has no trial that succeeded, and is {job.state}; name another job or leave it out")
    cost = CostModel.from_json(model.inspection["cost"])
    space = make_space(model.inspection["groups"], cost, spec)
    if any(not space.holds(trial.widths) or cost("macs", trial.widths) != trial.macs for trial in found):
        raise InvalidInput(FIELD, name, "was searched by another version of Secateur; run it again, or leave it out")
    return [_copy(job, trial, number) for number, trial in enumerate(found)]


def difference(spec: JobSpec, model: Model, dataset: Dataset, job: Job) -> str | None:
    """What of the earlier job makes its scores others than the new job's."""
    if job.scoring != SCORING:
        return "was scored by another version of Secateur"
    if job.model_id != model.id:
        return f"pruned another model, {job.model_id}"
    if job.dataset_id != dataset.id:
        return f"was scored on another data set, {job.dataset_id}"
    earlier = JobSpec.model_validate(job.spec)
    if earlier.task != spec.task:
        return "has another task"
    if (earlier.pruner.config_list, earlier.pruner.round_to) != (spec.pruner.config_list, spec.pruner.round_to):
        return "searched other widths (pruner.config_list or round_to)"
    if (earlier.pruner.name, earlier.pruner.params) != (spec.pruner.name, spec.pruner.params):
        return f"has another pruner, {earlier.pruner.name} with {earlier.pruner.params}"
    if ranks_globally(earlier) != ranks_globally(spec):
        return "compared channels otherwise (searcher.params.ranking)"
    if _recovery_of_trials(earlier) != _recovery_of_trials(spec):
        return "has another recovery (final_epochs and finalists may differ)"
    if earlier.resources.precision != spec.resources.precision:
        return f"was scored in another precision, {earlier.resources.precision}"
    return f"held out other images, by its seed {earlier.seed}" if earlier.seed != spec.seed else None


def _recovery_of_trials(spec: JobSpec) -> Recovery:
    """The recovery as far as it bears on scores, with one pruner: null and true are the same least squares."""
    same: dict[str, Any] = {"final_epochs": 0, "finalists": None, "least_squares": spec.recovery.least_squares is not False}
    if not spec.recovery.short_steps:
        same["recipe"] = Recipe()
    return spec.recovery.model_copy(update=same)


def _copy(job: Job, trial: Trial, number: int) -> Trial:
    note = trial.note if trial.given else f"{job.id}, trial {trial.number}: {trial.note}"
    return Trial(
        number=number,
        state=trial.state,
        note=note,
        widths=trial.widths,
        plan=trial.plan,
        macs=trial.macs,
        params=trial.params,
        size_bytes=trial.size_bytes,
        score=trial.score,
        metric=trial.metric,
        metric_drop=trial.metric_drop,
        asked_sequence=number + 1,
        told_sequence=number + 1,
    )
