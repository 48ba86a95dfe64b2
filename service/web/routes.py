"""The pages: ``/ui/…``. What they show is what the API shows, to whom the API shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from service.context import Context, InContext, InService
from service.database.tables import Job
from service.datasets.repository import datasets
from service.jobs.layers import layer_widths
from service.jobs.repository import JobRepository
from service.jobs.routes import EVENT_STREAM, MAX_NUMBER
from service.jobs.schemas import JobView
from service.jobs.summary import Summary
from service.jobs.views import job_view, trial_view
from service.models.repository import models
from service.pages import LARGEST_PAGE, After
from service.problems import NotFound
from service.web.cluster import cluster_page
from service.web.comparing import MOST, compared, comparison
from service.web.details import FORMS, Order, job_page
from service.web.html import HOME, HtmlRoute, render
from service.web.listing import PAGE, lines
from service.web.live import news
from service.web.network import drawing
from service.web.packed import packed
from service.web.plans import plans
from service.web.points import points

router = APIRouter(prefix="/ui", route_class=HtmlRoute, include_in_schema=False)

Jobs = Annotated[list[str], Query(default_factory=list)]

_CONTROLS: Mapping[str, Callable[[JobRepository, str], Any]] = MappingProxyType(
    {
        "pause": JobRepository.pause,
        "resume": JobRepository.resume,
        "stop": JobRepository.stop,
        "cancel": JobRepository.cancel,
        "delete": JobRepository.delete,
    }
)


@router.get("/jobs")
def get_jobs(request: Request, context: InContext, after: After = None) -> Response:
    """The list of jobs, newest first."""
    shown, following = lines(context.database, PAGE, after)
    return render(request, "jobs.html", lines=shown, following=following, after=after, most_compared=MOST)


@router.get("/jobs/stream")
async def get_stream(request: Request, context: InContext) -> Response:
    """Server-sent events: ``news`` whenever something happened to one of these jobs."""
    told = news(context.database, context.watch, request.scope["caller"].key_id)
    return StreamingResponse(told, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


@router.get("/jobs/{job_id}")
def get_job(
    request: Request,
    job_id: str,
    context: InContext,
    page: Annotated[int, Query(ge=0, le=MAX_NUMBER // 100)] = 0,
    order: Order = "number",
) -> Response:
    """One job."""
    shown = job_page(context.database, job_id, context.dispatcher.dashboard, page, order)
    return render(request, "job.html", page=shown, number=page, order=order, forms=FORMS)


@router.get("/jobs/{job_id}/points")
def get_points(
    request: Request, job_id: str, context: InContext, after: Annotated[int, Query(ge=-1, le=MAX_NUMBER)] = -1
) -> Response:
    """What the plots show."""
    _, view, summary = _whole(context, job_id)
    return packed(request, points(context.database, view, summary, after))


@router.get("/jobs/{job_id}/plans")
def get_plans(request: Request, job_id: str, context: InContext) -> Response:
    """What the plots by group show."""
    job, view, _ = _whole(context, job_id)
    return packed(request, plans(context.database, job, view, models(context.database).get(job.model_id)))


@router.get("/jobs/{job_id}/trials/{number}")
def get_trial(request: Request, job_id: str, number: Annotated[int, Path(ge=0, le=MAX_NUMBER)], context: InContext) -> Response:
    """One trial."""
    job, view, _ = _whole(context, job_id)
    trial = JobRepository(context.database).trial(job_id, number)
    layers = layer_widths(trial)
    network = drawing(models(context.database).get(job.model_id), layers)
    return render(request, "trial.html", job=view, trial=trial_view(trial), layers=layers, network=network)


@router.get("/jobs/{job_id}/{action}")
def get_control(request: Request, job_id: str, action: Literal["cancel", "delete"], context: InContext) -> Response:
    """Asks whether what cannot be undone is meant."""
    return render(request, "confirm.html", job=JobRepository(context.database).get(job_id), action=action)


@router.post("/jobs/{job_id}/{action}")
async def post_control(
    job_id: str, action: Literal["pause", "resume", "stop", "cancel", "delete"], context: InContext
) -> Response:
    """Does to a job what the call of that name does, and shows it again."""
    await run_in_threadpool(_CONTROLS[action], JobRepository(context.database), job_id)
    context.dispatcher.wake()
    return RedirectResponse(HOME if action == "delete" else f"{HOME}/{job_id}", status_code=303)


@router.get("/compare")
def get_compare(request: Request, context: InContext, job: Jobs) -> Response:
    """Jobs side by side."""
    return render(
        request, "compare.html", compared=compared(context.database, job), query=urlencode([("job", each) for each in job])
    )


@router.get("/compare/points")
def get_comparison(request: Request, context: InContext, job: Jobs) -> Response:
    """What the plots of that page show."""
    return packed(request, comparison(context.database, job))


@router.get("/cluster")
def get_cluster(request: Request, context: InContext, service: InService) -> Response:
    """Workers and the queue."""
    shown = cluster_page(service.database, context.database)
    ray = context.dispatcher
    most = context.settings.max_running_jobs
    return render(request, "cluster.html", page=shown, dashboard=ray.home, problem=ray.problem, most=most)


@router.get("/new")
def get_new(request: Request, context: InContext) -> Response:
    """The form of a new job, with the latest uploads to choose from."""
    sent, _ = models(context.database).page(LARGEST_PAGE, None)
    data, _ = datasets(context.database).page(LARGEST_PAGE, None)
    return render(request, "new.html", models=sent, datasets=data)


@router.get("/{path:path}")
def get_nothing(path: str, context: InContext) -> Response:
    """A page that is not there."""
    raise NotFound("page", path, HOME)


def _whole(context: Context, job_id: str) -> tuple[Job, JobView, Summary]:
    """A job, as the API shows it, and what its trials add up to; raises ``NotFound``."""
    job, summary = JobRepository(context.database).get_with_summary(job_id)
    return job, job_view(job, summary), summary
