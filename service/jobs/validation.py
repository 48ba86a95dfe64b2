"""Everything that can be known to be wrong with a job before any work is spent on it.

Works on the inspections' JSON alone: no torch, no Ray, no file is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pruners.cost import CostModel
from pruners.errors import InvalidInput
from searchers.base import Searcher
from searchers.space import SearchSpace
from service.inspection import Kind
from service.jobs.schemas import PlannedGroup, PlanView
from service.uploads import stale
from workers.constraint import check_constraint
from workers.plan import check_schedule, check_scored, make_searcher, make_space, selected_groups
from workers.spec import LATENCY_MS, JobSpec, PrunerChoice, Task
from workers.tasks import check_task
from workers.weights import prunes_weights, weight_cost, weight_groups


def plan(spec: JobSpec, model: Mapping[str, Any], data: Mapping[str, Any], pruners: Sequence[Mapping[str, Any]]) -> PlanView:
    """What the job would do.

    Args:
        spec: as the user sent it.
        model: ``workers.inspection.inspect_model``'s findings.
        data: what ``workers.formats.convert.convert`` found.
        pruners: the catalogue.

    Raises:
        InvalidInput: the first thing that cannot work.
    """
    _check_pruner(spec.pruner, pruners)
    schedule = any(pruner["name"] == spec.pruner.name and pruner["schedule"] for pruner in pruners)
    if schedule:
        check_schedule(spec)
    uploads: tuple[tuple[str, Kind, Mapping[str, Any]], ...] = (("model", "model", model), ("dataset", "data", data))
    for field, kind, found in uploads:
        if stale(kind, found):
            raise InvalidInput(field, None, "was inspected by another version of Secateur; upload the same file again")
    _check_inputs(model, data)
    _check_recipe(spec, data)
    task = check_task(spec, model["outputs"], data)
    check_constraint(spec, task, data, schedule)
    if prunes_weights(spec):
        groups, cost = weight_groups(model["layers"]), weight_cost(model["layers"])
    else:
        groups, cost = model["groups"], CostModel.from_json(model["cost"])
    check_scored(groups, spec)
    space = make_space(groups, cost, spec)
    searcher = make_searcher(space, spec)
    return _view(spec, task, groups, space, searcher)


def _check_pruner(choice: PrunerChoice, pruners: Sequence[Mapping[str, Any]]) -> None:
    import jsonschema  # type: ignore[import-untyped]  # takes a while to import

    schemas = {pruner["name"]: pruner["params"] for pruner in pruners}
    if choice.name not in schemas:
        raise InvalidInput("pruner.name", choice.name, f"is unknown; use one of {', '.join(sorted(schemas))}")
    known = schemas[choice.name].get("properties", {})
    for name, value in choice.params.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise InvalidInput(f"pruner.params.{name}", value, f"is not a parameter of {choice.name}; it takes {takes}")
    for error in jsonschema.Draft202012Validator(schemas[choice.name]).iter_errors(choice.params):
        field = ".".join(["pruner.params", *map(str, error.absolute_path)])
        raise InvalidInput(field, error.instance, f"is not usable: {error.message}")


def _check_recipe(spec: JobSpec, data: Mapping[str, Any]) -> None:
    """Refuses what a training could do to images or labels where there are none."""
    recipe, task = spec.recovery.recipe, spec.task.type
    if recipe.augment and len(data["shape"]) != 3:
        problem = f"is for images [channels, height, width], but the inputs have the shape {data['shape']}; leave it out"
        raise InvalidInput("recovery.recipe.augment", list(recipe.augment), problem)
    if recipe.augment and task == "regression":
        problem = "changes the images, for which the values in the data are none then; leave it out"
        raise InvalidInput("recovery.recipe.augment", list(recipe.augment), problem)
    if recipe.label_smoothing and task != "classification":
        problem = f"is for the labels of a classification, which {task} has not; leave it out"
        raise InvalidInput("recovery.recipe.label_smoothing", recipe.label_smoothing, problem)


def _check_inputs(model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    if len(model["inputs"]) != 1:
        count = len(model["inputs"])
        raise InvalidInput("model", None, f"takes {count} inputs; export it with one")
    wanted, given = model["inputs"][0]["shape"][1:], data["shape"]
    if _matches(wanted, given):
        return
    remedy = "make the arrays in the model's shape"
    if len(given) == 3 and _matches(wanted, [given[2], given[0], given[1]]):
        remedy = "channels come first here: save x.transpose(0, 3, 1, 2)"
    raise InvalidInput("dataset", None, f"holds inputs of shape {given}, but the model takes {_show(wanted)}; {remedy}")


def _matches(wanted: Sequence[int | None], given: Sequence[int]) -> bool:
    """Whether a shape fits; ``None`` fits every size."""
    return len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))


def _show(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _costs(spec: JobSpec, space: SearchSpace) -> dict[str, int | None]:
    if spec.metric == LATENCY_MS:
        return {"dense": None, "limit": None, "least": None}
    return {"dense": space.cost(space.dense), "limit": space.budget.limit, "least": space.cost(space.least)}


def _view(spec: JobSpec, task: Task, groups: Sequence[Mapping[str, Any]], space: SearchSpace, searcher: Searcher) -> PlanView:
    selected = selected_groups(groups, spec.pruner.config_list)
    least = {group.name: width for group, width in zip(space.groups, space.least, strict=True)}

    def kept_because(group: Mapping[str, Any]) -> str | None:
        if group["frozen_reason"] is not None:
            return str(group["frozen_reason"])
        if group["name"] not in selected:
            return "pruner.config_list does not select all of its layers"
        return None if least[group["name"]] < group["width"] else "it has no smaller width"

    return PlanView(
        task=task,
        metric=spec.metric,
        **_costs(spec, space),
        planned_trials=searcher.planned_trials,
        groups=[
            PlannedGroup(
                name=group["name"],
                width=group["width"],
                least=least.get(group["name"], group["width"]),
                layers=group["layers"],
                residual=group["residual"],
                kept_because=kept_because(group),
            )
            for group in groups
        ],
    )
