"""``/jobs``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from pruners.errors import InvalidInput
from service.context import Context, InContext
from service.database.tables import KEY_LENGTH, Job, Trial, new_id
from service.datasets.repository import datasets
from service.jobs import validation
from service.jobs.bodies import FORM, fingerprint, read_request
from service.jobs.formats import Format
from service.jobs.repository import JobRepository, Once
from service.jobs.schemas import CheckpointView, EventView, JobRequest, JobView, PlanView, TrialView
from service.jobs.shown import shown
from service.jobs.states import ENDS, IllegalMove, State
from service.jobs.stream import stream
from service.jobs.views import checkpoint_views, event_view, job_view, trial_view
from service.jobs.warm_start import earlier_trials
from service.models.repository import models
from service.pages import CURSOR, After, Limit, Page
from service.problems import BadRange, Conflict, KeyReused, NotFound, documented
from service.uploads import REFUSALS
from service.webhooks.addresses import check_webhook

router = APIRouter(prefix="/jobs", tags=["jobs"])

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=rf"^[\x21-\x7e]{{1,{KEY_LENGTH}}}$",
        description="Of your making; for a week at least, the same key with the same request returns the job that the first "
        "one made, and with another request it is refused.",
    ),
]
EVENT_STREAM = "text/event-stream"
MAX_NUMBER = 2**31 - 1  # of a trial: the largest integer of its column


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["model", "data", "job"],
                    "properties": {
                        "model": {"type": "string", "format": "binary", "description": "A `.pt2` file."},
                        "data": {"type": "string", "format": "binary", "description": "As for `POST /datasets`."},
                        "job": {
                            "type": "string",
                            "description": "The JSON without `model` and `dataset`.",
                            "examples": ['{"budget": {"metric": "macs", "ratio": 0.5}}'],
                        },
                    },
                }
            },
        },
    }
}


_LINKED = (
    *("get_job", "get_trials", "get_events", "get_checkpoints", "get_checkpoint", "get_report"),
    *("pause_job", "resume_job", "stop_job", "cancel_job", "delete_job"),
)  # calls that a new job's id is for


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    openapi_extra=_BODY,
    responses={
        200: {"model": PlanView, "description": "`dry_run`: what the job would do."},
        202: {"links": {name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in _LINKED}},
        **REFUSALS,
        **documented(NotFound, InvalidInput, KeyReused),
    },
)
async def post_job(
    request: Request,
    response: Response,
    context: InContext,
    key: Key = None,
    dry_run: Annotated[bool, Query(description="Validate and plan, but make no job.")] = False,
) -> Any:
    """Queues a job, as JSON or as a form with the files beside it. Whatever is known to be wrong is refused here."""
    sent = await read_request(request, context)
    if dry_run:
        planned = await _plan(sent, context)
        return _json(planned.view)
    jobs, once = JobRepository(context.database), Once(key, fingerprint(sent)) if key else None
    job = await run_in_threadpool(jobs.made_by, once) if once else None
    if job is None:
        planned = await _plan(sent, context)
        job = await run_in_threadpool(jobs.add, _new_job(sent, planned), planned.given, once)
        context.dispatcher.wake()
    response.headers["Location"] = f"/jobs/{job.id}"
    return await run_in_threadpool(_view, context, job)


@router.get("")
def get_jobs(context: InContext, limit: Limit = 50, after: After = None) -> Page[JobView]:
    """All jobs, newest first."""
    jobs = JobRepository(context.database)
    rows, following = jobs.page(limit, after)
    found, page_of = jobs.summaries_of(rows), context.dispatcher.dashboard
    return Page(items=[job_view(job, found[job.id], page_of(job)) for job in rows], next=following)


@router.get("/{job_id}", response_model=JobView, responses=documented(NotFound))
async def get_job(job_id: str, context: InContext) -> Response:
    """One job: its state, how far it is, what it found."""
    text = await context.database.aside(partial(shown, context.database, job_id, context.dispatcher))
    return Response(text, media_type="application/json")  # FastAPI would check it again


@router.get("/{job_id}/trials", responses=documented(NotFound))
def get_trials(job_id: str, context: InContext, limit: Limit = 100, after: After = None) -> Page[TrialView]:
    """A job's trials in the order in which the searcher asked for them."""
    rows, following = JobRepository(context.database).trials(job_id, limit, after)
    return Page(items=[trial_view(trial) for trial in rows], next=following)


@router.get("/{job_id}/trials/{number}", responses=documented(NotFound))
def get_trial(job_id: str, number: Annotated[int, Path(ge=0, le=MAX_NUMBER)], context: InContext) -> TrialView:
    """One trial."""
    return trial_view(JobRepository(context.database).trial(job_id, number))


@router.get(
    "/{job_id}/events",
    response_model=Page[EventView],
    responses={
        200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}},
        204: {"description": "As a stream: the job has ended, and there is nothing behind `Last-Event-ID`."},
        **documented(NotFound),
    },
)
async def get_events(
    request: Request,
    job_id: str,
    context: InContext,
    limit: Limit = 100,
    after: After = None,
    last_event_id: Annotated[
        str | None, Header(pattern=CURSOR, description="Of a stream that broke off: where it goes on, in place of `after`.")
    ] = None,
) -> Any:
    """What happened to a job, oldest first; ask again with `after` set to the last id for what is new.

    With `Accept: text/event-stream` the events are sent as they happen, until the job has ended.
    """
    jobs = JobRepository(context.database)
    if EVENT_STREAM not in request.headers.get("accept", ""):
        rows, following = await run_in_threadpool(jobs.events, job_id, limit, after)
        return Page(items=[event_view(event) for event in rows], next=following)
    seen = last_event_id or after or "0"
    missed, _ = await run_in_threadpool(jobs.events, job_id, 1, seen)  # refuses what is no cursor before the stream begins
    job = await run_in_threadpool(jobs.get, job_id)
    if not missed and job.state in ENDS:
        return Response(status_code=204)
    return StreamingResponse(
        stream(jobs, context.watch, job_id, int(seen), request.scope["caller"].key_id),
        media_type=EVENT_STREAM,
        headers={"X-Accel-Buffering": "no"},  # a proxy that gathers an answer before it passes it on would gather for ever
    )


@router.get("/{job_id}/checkpoints", responses=documented(NotFound))
def get_checkpoints(job_id: str, context: InContext) -> Page[CheckpointView]:
    """The networks that a job kept, with their figures and files."""
    jobs = JobRepository(context.database)
    return Page(items=checkpoint_views(jobs.get(job_id), jobs.checkpoints(job_id)), next=None)


@router.get(
    "/{job_id}/checkpoint",
    response_class=FileResponse,
    responses={
        206: {"description": "The `Range` that was asked for."},
        **documented(NotFound, Conflict, BadRange),
    },
)
def get_checkpoint(
    job_id: str,
    context: InContext,
    format: Format = Format.PT2,
    trial: Annotated[
        int | None, Query(ge=0, le=MAX_NUMBER, description="Of another network that the job kept; by default the best one.")
    ] = None,
) -> FileResponse:
    """A network that the job kept. The `ETag` is the file's sha256; `Range` resumes a broken download."""
    jobs = JobRepository(context.database)
    job = jobs.get(job_id)
    number = job.best["trial"] if trial is None and job.best is not None else trial
    files = {file.format: file for file in jobs.checkpoints(job_id) if file.trial == number}
    if format not in files:
        which = "checkpoint" if trial is None else f"checkpoint of trial {trial}"
        raise Conflict(f"Job {job.id} is {job.state} and has no {format} {which}; it has one once it succeeded.")
    file = files[format]
    name = job.id if trial is None else f"{job.id}-{trial}"
    return FileResponse(
        context.store.verified(file.sha256),
        headers={"ETag": f'"{file.sha256}"'},
        media_type=format.media_type,
        filename=f"{name}.{format.extension}",
    )


@router.post("/{job_id}/cancel", status_code=202, responses=documented(NotFound, IllegalMove))
async def cancel_job(job_id: str, context: InContext) -> JobView:
    """Ends a job at once; nothing of it is kept but its rows. Asking twice is the same as asking once."""
    return await _control(context, JobRepository.cancel, job_id)


@router.post("/{job_id}/pause", status_code=202, responses=documented(NotFound, IllegalMove))
async def pause_job(job_id: str, context: InContext) -> JobView:
    """Releases a job's workers at once; trials that they were at run again after `resume`. Idempotent."""
    return await _control(context, JobRepository.pause, job_id)


@router.post("/{job_id}/resume", status_code=202, responses=documented(NotFound, IllegalMove))
async def resume_job(job_id: str, context: InContext) -> JobView:
    """Queues a paused job in its old place; it goes on from its trials. Idempotent."""
    return await _control(context, JobRepository.resume, job_id)


@router.post("/{job_id}/stop", status_code=202, responses=documented(NotFound, Conflict))
async def stop_job(job_id: str, context: InContext) -> JobView:
    """Ends a search with what it has found: running trials are heard, the best network is finished as ever. Idempotent."""
    return await _control(context, JobRepository.stop, job_id)


@router.delete("/{job_id}", status_code=204, responses=documented(NotFound, Conflict))
def delete_job(job_id: str, context: InContext) -> None:
    """Forgets a job that has ended. `secateur gc` then frees its files' space."""
    JobRepository(context.database).delete(job_id)


async def _control(context: Context, ask: Callable[[JobRepository, str], Job], job_id: str) -> JobView:
    jobs = JobRepository(context.database)
    job = await run_in_threadpool(ask, jobs, job_id)
    context.dispatcher.wake()
    return await run_in_threadpool(_view, context, job)


def _json(view: BaseModel) -> Response:
    return Response(view.model_dump_json(), media_type="application/json")


def _view(context: Context, job: Job) -> JobView:
    summary = JobRepository(context.database).summaries_of([job])[job.id]
    return job_view(job, summary, context.dispatcher.dashboard(job))


@dataclass(frozen=True)
class _Plan:
    """What a job would do, the name of its model, and the trials that an earlier job gives it."""

    view: PlanView
    model_name: str
    given: list[Trial]


async def _plan(sent: JobRequest, context: Context) -> _Plan:
    pruners = await context.catalogue.pruners()
    if sent.task.code is not None and not context.settings.allow_code:
        problem = "runs code of its sender's, which this server does not; ask its operator for SECATEUR_ALLOW_CODE"
        raise InvalidInput("task.type", "custom", problem)
    if sent.webhook is not None:
        await check_webhook(sent.webhook.url, context.settings.webhooks, context.settings.webhook_networks)

    def check() -> _Plan:
        model = models(context.database).get(sent.model)
        dataset = datasets(context.database).get(sent.dataset)
        view = validation.plan(sent.spec(), model.inspection, dataset.inspection, pruners)
        spec = sent.spec().model_copy(update={"task": view.task})
        given = earlier_trials(spec, model, dataset, JobRepository(context.database))
        return _Plan(view.model_copy(update={"given_trials": len(given)}), model.name, given)

    return await run_in_threadpool(check)


def _new_job(sent: JobRequest, planned: _Plan) -> Job:
    plan = planned.view
    return Job(
        id=new_id("job"),
        name=sent.name or planned.model_name,
        model_id=sent.model,
        dataset_id=sent.dataset,
        spec=sent.spec().model_copy(update={"task": plan.task}).model_dump(mode="json"),  # as it is read again
        budget_limit=plan.limit,
        planned_trials=plan.given_trials + plan.planned_trials,
        state=State.QUEUED,
        webhook=None if sent.webhook is None else sent.webhook.model_dump(mode="json"),
    )
