"""From a model's inspection and a job's specification to the search: which groups vary, on what budget, by which searcher.

The API runs this before it accepts a job and the job's own process runs it again, so both see the same search. Imports
neither torch nor ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from pruners.cost import LATENCY, NANOSECONDS, CostModel
from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Params, Searcher, parse_params
from searchers.finals import Finals
from searchers.guarantee import MOST_SIZES, Guaranteed
from searchers.sizes import EveryBudget
from searchers.space import Budget, Group, SearchSpace
from workers.refusal import refusal
from workers.spec import LATENCY_MS, JobSpec, LayerRule
from workers.spec import Budget as Stated

RUNS_SCHEDULES = "fixed"
"""The searcher whose one trial may be a training."""

_FINALISTS = 4  # the best of a search are much alike, and a fifth one hardly ever wins
_FEWEST_TRIALS = 40  # of a search with finalists, unless they are asked for
_FINAL_EPOCHS = 1

_STAND_IN, _SOME_RATIO = "macs", 0.5  # for a budget of milliseconds before they are measured

EVERY_TYPE = "default"
"""In ``op_types``: every layer type (NNI's word for it)."""


def make_space(
    inspection_groups: Sequence[Mapping[str, Any]],
    cost: CostModel,
    spec: JobSpec,
    scores: Sequence[Sequence[float]] | None = None,
) -> SearchSpace:
    """What a job searches over.

    Args:
        inspection_groups: ``groups`` of ``workers.inspection.inspect_model``, frozen ones included.
        cost: over the groups whose ``frozen_reason`` is null, in order. Where it does not foretell latencies, MACs stand in for
            a budget of milliseconds: groups and widths are the same.
        spec: the job's; ``pruner.config_list`` selects layers, and a group varies only if all its layers are selected.
        scores: per such group, of each of its classes, for a search that ranks them together; ``None`` before there are any.

    Raises:
        InvalidInput: a rule names what the model does not have or cannot prune, no group is selected, or the budget is
            out of reach.
    """
    selected = selected_groups(inspection_groups, spec.pruner.config_list)
    free = [group for group in inspection_groups if group["frozen_reason"] is None]
    groups = [
        Group(
            name=group["name"],
            width=group["width"],
            divisor=group["divisor"],
            minimum=group["minimum"] if group["name"] in selected else group["width"],
            residual=group["residual"],
            scores=tuple(importance),
        )
        for group, importance in zip(free, scores or [()] * len(free), strict=True)
    ]
    if spec.metric == LATENCY_MS:
        return SearchSpace(groups, cost, _in_time(groups, cost, spec), round_to=spec.pruner.round_to)
    loosest = budgets_of(spec, cost(spec.metric, [group.width for group in groups]))[0]
    space = SearchSpace(groups, cost, loosest, round_to=spec.pruner.round_to)
    sizes_of(space, spec)
    return space


def sizes_of(space: SearchSpace, spec: JobSpec) -> list[SearchSpace]:
    """The space under each of the job's budgets, the loosest, which is its own, first; raises ``InvalidInput``."""
    if len(spec.budgets) == 1:
        return [space]
    return [space.under(budget) for budget in budgets_of(spec, space.cost(space.dense))]


def budgets_of(spec: JobSpec, dense: int) -> list[Budget]:
    """The loosest first."""
    return sorted((budget_of(stated, dense) for stated in spec.budgets), key=lambda budget: -budget.limit)


def budget_of(stated: Stated, dense: int) -> Budget:
    """A budget on a network of that cost; one that states no limit is met by any that is smaller."""
    if stated.open:
        return Budget(stated.metric, dense - 1)
    maximum = None if stated.max is None else int(stated.max)
    return Budget.of(stated.metric, dense, ratio=stated.ratio, maximum=maximum)


def _in_time(groups: Sequence[Group], cost: CostModel, spec: JobSpec) -> Budget:
    (budget,) = spec.budgets
    stands_in = not cost.foretells(LATENCY)
    dense = cost(_STAND_IN if stands_in else LATENCY, [group.width for group in groups])
    if stands_in:
        least = SearchSpace(groups, cost, Budget(_STAND_IN, dense - 1), spec.pruner.round_to)
        return Budget(_STAND_IN, max(least.cost(least.least), int((budget.ratio or _SOME_RATIO) * dense)))
    maximum = None if budget.max is None else int(Fraction(str(budget.max)) * NANOSECONDS)
    return Budget.of(LATENCY, dense, ratio=budget.ratio, maximum=maximum)


def check_schedule(spec: JobSpec) -> None:
    """Refuses what goes with no pruner that is a schedule.

    That is a search, since each of its trials would be a whole training, finalists, and least squares.
    """
    if spec.searcher.name != RUNS_SCHEDULES:
        problem = f"cannot run {spec.pruner.name}, a schedule that trains; use searcher {RUNS_SCHEDULES}, or another pruner"
        raise InvalidInput("searcher.name", spec.searcher.name, problem)
    if spec.recovery.least_squares:
        problem = f"finds nothing to make up for behind {spec.pruner.name}, which has silenced what goes; leave it out"
        raise InvalidInput("recovery.least_squares", True, problem)
    if spec.recovery.finalists:
        problem = f"has nothing to choose from behind {spec.pruner.name}, whose one trial trains; leave it out"
        raise InvalidInput("recovery.finalists", spec.recovery.finalists, problem)
    if ranks_globally(spec):
        problem = f"needs scores before anything is trained, which {spec.pruner.name} has not; use uniform, or another pruner"
        raise InvalidInput("searcher.params.ranking", "global", problem)


def ranks_globally(spec: JobSpec) -> bool:
    """Whether the job ranks the channels of all groups together."""
    return spec.searcher.name == RUNS_SCHEDULES and spec.searcher.params.get("ranking") == "global"


def check_scored(inspection_groups: Sequence[Mapping[str, Any]], spec: JobSpec) -> None:
    """Refuses a pruner that sees nothing of a group that ``pruner.config_list`` selects, as slim does where no BatchNorm is."""
    selected = selected_groups(inspection_groups, spec.pruner.config_list)
    for group in inspection_groups:
        if group["name"] in selected and spec.pruner.name in group["unscored_by"]:
            layers = ", ".join(group["layers"])
            problem = f"sees nothing of the channels of {group['name']}, which pass through no layer that it scores"
            remedy = f"use another pruner, or exclude {layers} in pruner.config_list"
            raise InvalidInput("pruner.name", spec.pruner.name, f"{problem}; {remedy}")


def make_searcher(space: SearchSpace, spec: JobSpec) -> Searcher:
    """The job's searcher in its initial state.

    Raises:
        InvalidInput: no such searcher, parameters it does not take, or a search that does not fit ``limits.max_trials``.
    """
    searcher = SEARCHERS[spec.searcher.name]
    try:
        params = parse_params(searcher, spec.searcher.params)
    except ValidationError as error:
        raise refusal(error.errors(), "searcher.params") from error
    trials, sizes = spec.limits.max_trials, [size.budget.limit for size in sizes_of(space, spec)]
    if spec.constraint is not None and spec.minimises:
        epochs, most = spec.recovery.final_epochs, spec.constraint.max_metric_drop
        each = trials // MOST_SIZES - bool(epochs)
        with _shared(trials, each, MOST_SIZES):
            return Guaranteed(lambda under: _made(under, spec, params, each), space, most, epochs)
    if len(sizes) > 1:
        each = trials // len(sizes)
        with _shared(trials, each, len(sizes)):
            return EveryBudget(lambda under: _with_finals(under, spec, params, each), space, sizes)
    return _with_finals(space, spec, params, trials)


def _made(space: SearchSpace, spec: JobSpec, params: Params, trials: int) -> Searcher:
    search = SEARCHERS[spec.searcher.name](space, params, spec.seed, trials)
    if spec.recovery.short_steps:
        search.expect_training()
    return search


@contextmanager
def _shared(trials: int, each: int, sizes: int) -> Iterator[None]:
    """What a search says that gets ``each`` of a job's trials, in terms of what its sender stated."""
    problem = f"leaves {max(each, 0)} trials for each of {sizes} sizes"
    if each < 1:
        raise InvalidInput("limits.max_trials", trials, f"{problem}; allow more")
    try:
        yield
    except InvalidInput as error:
        if error.field != "limits.max_trials":
            raise
        raise InvalidInput("limits.max_trials", trials, f"{problem}, and {str(error).rstrip('.')} for each size") from error


def _with_finals(space: SearchSpace, spec: JobSpec, params: Params, trials: int) -> Searcher:
    """A search under one budget, and the final behind it if the job has one."""
    search, finalists = _made(space, spec, params, trials), spec.recovery.finalists
    if finalists is None:
        suits = spec.recovery.final_epochs and not search.names_parents and search.planned_trials > 1
        finalists = _FINALISTS if suits and trials >= _FEWEST_TRIALS else 0
    elif finalists and search.names_parents:
        problem = f"does not go with {spec.searcher.name} here, whose trials start from each other's networks; leave it out"
        raise InvalidInput("recovery.finalists", finalists, problem)
    if not finalists:
        return search
    try:
        if finalists < trials:
            return Finals(_made(space, spec, params, trials - finalists), finalists, _FINAL_EPOCHS)
    except InvalidInput:
        if spec.recovery.finalists is None:
            return search
    problem = f"leaves {spec.searcher.name} too few of limits.max_trials {trials}; state fewer, or allow more trials"
    raise InvalidInput("recovery.finalists", finalists, problem)


def selected_groups(inspection_groups: Sequence[Mapping[str, Any]], rules: Sequence[LayerRule]) -> set[str]:
    """Names of the prunable groups whose layers are all selected by the rules; of several the last one decides.

    Raises:
        InvalidInput: an unknown layer or type, a layer that cannot be pruned named on its own, or nothing selected.
    """
    for number, rule in enumerate(rules):
        _check_rule(f"pruner.config_list.{number}", rule, inspection_groups)
    free = [group for group in inspection_groups if group["frozen_reason"] is None]
    chosen = {
        group["name"]
        for group in free
        if all(_selected(name, kind, rules) for name, kind in zip(group["layers"], group["types"], strict=True))
    }
    if not chosen:
        raise InvalidInput("pruner.config_list", None, _nothing_selected(free, rules))
    return chosen


def _check_rule(field: str, rule: LayerRule, groups: Sequence[Mapping[str, Any]]) -> None:
    types = {kind for group in groups for kind in group["types"]}
    for kind in rule.op_types:
        if kind != EVERY_TYPE and kind not in types:
            known = ", ".join(sorted(types))
            raise InvalidInput(f"{field}.op_types", kind, f"is no layer type of this model; use {EVERY_TYPE}, {known}")
    group_of = {layer: group for group in groups for layer in group["layers"]}
    for name in rule.op_names:
        if name not in group_of:
            known = ", ".join(list(group_of)[:5])
            raise InvalidInput(
                f"{field}.op_names", name, f"is no layer of this model; its {len(group_of)} layers are {known}, …"
            )
        reason = group_of[name]["frozen_reason"]
        if reason is not None and not rule.exclude:
            raise InvalidInput(f"{field}.op_names", name, f"cannot be pruned ({reason}); leave it out")


def _selected(name: str, kind: str, rules: Sequence[LayerRule]) -> bool:
    selected = False
    for rule in rules:
        by_type = not rule.op_types or kind in rule.op_types or EVERY_TYPE in rule.op_types
        by_name = not rule.op_names or name in rule.op_names
        if by_type and by_name:
            selected = not rule.exclude
    return selected


def _nothing_selected(free: Sequence[Mapping[str, Any]], rules: Sequence[LayerRule]) -> str:
    for group in free:
        missing = [name for name, kind in zip(group["layers"], group["types"], strict=True) if not _selected(name, kind, rules)]
        if len(missing) < len(group["layers"]):
            together = ", ".join(group["layers"])
            return f"selects only part of the layers that must be pruned together; select all of {together}"
    if not free:
        return "has nothing to select: every group of this model is frozen; GET /models says why"
    return 'selects no prunable layer; start from [{"op_types": ["default"]}]'
