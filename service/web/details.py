"""What the page of a job and the page of a trial show, worked out of the rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select

from pruners.cost import SPARSITY
from service.database import Database
from service.database.tables import Dataset, Event, Job, Model, Trial
from service.jobs.figures import difference, figure
from service.jobs.formats import Format
from service.jobs.layers import LayerWidth, layer_widths
from service.jobs.repository import JobRepository
from service.jobs.schemas import CheckpointView, EventView, JobView, TrialView
from service.jobs.states import ENDS, LIVE, UNWANTED, State
from service.jobs.summary import cost_column
from service.jobs.views import best_trial, checkpoint_views, event_view, job_view, trial_view
from service.texts import UNITS
from service.web.costs import Size, sizes
from service.web.network import Drawing, drawing

TRIALS_PAGE = 25
EVENTS_SHOWN = 20

FORMS = {
    Format.PT2: "the network, opens with torch alone",
    Format.ONNX: "the network, for onnxruntime and others",
    Format.INT8: "the same in 8-bit integers",
    Format.SAFETENSORS: "its weights",
    Format.RECIPE: "what was removed, for a class of your own",
    Format.CARD: "how it was made, in full",
}
"""What each form of a network is, the one that most will want first."""

Order = Literal["number", "score", "cost"]


@dataclass(frozen=True)
class Tile:
    """A figure of the headline: before, after, and the share that is left."""

    title: str
    dense: str
    pruned: str
    share: str


@dataclass(frozen=True)
class JobPage:
    """A job, and all that its page says of it; the plots ask for their figures themselves."""

    job: JobView
    model: Model
    dataset: Dataset
    tiles: list[Tile]
    unit: str
    sizes: list[Size]
    layers: list[LayerWidth]
    network: Drawing | None
    layers_of: int | None
    trials: list[TrialView]
    pages: int
    events: list[EventView]
    last_event: int
    kept: list[CheckpointView]
    controls: list[str]
    ended: bool
    stated: str


def job_page(database: Database, job_id: str, dashboard: Any, page: int, order: Order) -> JobPage:
    """Everything of one job; raises ``NotFound``."""
    repository = JobRepository(database)
    row = repository.get(job_id)
    summary = repository.summaries_of([row])[row.id]
    view = job_view(row, summary, dashboard(row))
    best = best_trial(view)
    with database.read() as session:
        model, dataset = session.get_one(Model, row.model_id), session.get_one(Dataset, row.dataset_id)
        count = session.scalars(select(func.count()).select_from(Trial).where(Trial.job_id == job_id)).one()
        ordered = select(Trial).where(Trial.job_id == job_id).order_by(*_order(order, view))
        trials = session.scalars(ordered.offset(TRIALS_PAGE * page).limit(TRIALS_PAGE)).all()
        latest = select(Event).where(Event.job_id == job_id).order_by(Event.id.desc()).limit(EVENTS_SHOWN)
        events = session.scalars(latest).all()
        winner = None if best is None else session.get(Trial, (job_id, best))
    kept = checkpoint_views(row, repository.checkpoints(job_id))
    layers = [] if winner is None else layer_widths(winner)
    return JobPage(
        job=view,
        model=model,
        dataset=dataset,
        tiles=_tiles(view, model, winner),
        unit=UNITS[view.spec.metric],
        sizes=sizes(row, view, summary),
        layers=layers,
        network=drawing(model, layers) if layers else None,
        layers_of=best,
        trials=[trial_view(trial) for trial in trials],
        pages=max(1, -(-count // TRIALS_PAGE)),
        events=[event_view(event) for event in events],
        last_event=events[0].id if events else 0,
        kept=[
            each.model_copy(update={"files": sorted(each.files, key=lambda file: list(FORMS).index(file.format))})
            for each in kept
        ],
        controls=_controls(row),
        ended=row.state in ENDS,
        stated=json.dumps(view.spec.model_dump(mode="json", exclude_defaults=True), indent=2),
    )


def _order(order: Order, view: JobView) -> Sequence[Any]:
    """The newest first; or the best; or the cheapest in what the budget is in."""
    if order == "score":
        return (Trial.score.is_(None), Trial.score.desc(), Trial.number)
    if order == "cost":
        column = Trial.params if view.spec.metric == SPARSITY else cost_column(view.spec.metric)
        return (column.is_(None), column, Trial.number)
    return (Trial.number.desc(),)


def _tiles(view: JobView, model: Model, best: Trial | None) -> list[Tile]:
    """Measured on the test split once there is a winner; before that, what the search knows of its best plan."""
    name, title = view.metric.name, view.metric.title
    if view.baseline is not None and view.best is not None:
        dense, pruned = view.baseline, view.best
        change = difference(pruned.metric - dense.metric, name, signed=True)
        return [
            Tile(f"{title}, test", figure(dense.metric, name), figure(pruned.metric, name), change),
            *(
                Tile(
                    label,
                    f"{getattr(dense, key):,}",
                    f"{getattr(pruned, key):,}",
                    _left(getattr(pruned, key), getattr(dense, key)),
                )
                for label, key in (("MACs of one input", "macs"), ("parameters", "params"), ("bytes of the file", "size_bytes"))
            ),
            Tile(
                "latency of one input",
                f"{dense.latency_ms:.3f} ms",
                f"{pruned.latency_ms:.3f} ms",
                _left(pruned.latency_ms, dense.latency_ms),
            ),
        ]
    dense_costs = model.inspection
    tiles = [
        Tile(
            f"{title}, search inputs",
            "measured at the end",
            figure(None if best is None else best.metric, name),
            f"trial {best.number}" if best else "",
        )
    ]
    for label, key in (("MACs of one input", "macs"), ("parameters", "params")):
        kept = None if best is None else getattr(best, key)
        tiles.append(
            Tile(
                label,
                f"{dense_costs[key]:,}",
                "–" if kept is None else f"{kept:,}",
                "" if kept is None else _left(kept, dense_costs[key]),
            )
        )
    return tiles


def _left(kept: float, dense: float) -> str:
    return f"{100 * kept / dense:.1f} %" if dense else ""


def _controls(job: Job) -> list[str]:
    """What may be asked of the job now."""
    state = State(job.state)
    if state in ENDS:
        return ["delete"]
    wanted = state not in UNWANTED
    return [
        *(["resume"] if state in (State.PAUSED, State.PAUSING) else ["pause"] if wanted else []),
        *(["stop"] if not job.stop_asked and job.sequence > 0 and (state == State.RUNNING or state not in LIVE) else []),
        *(["cancel"] if state is not State.CANCELLING else []),
    ]
