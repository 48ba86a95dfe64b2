"""``/livez``, ``/readyz``, ``/metrics`` and ``/version``: for supervisors, without a token."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field

from service.auth import require_access_or_loopback
from service.context import Context, InService
from service.metrics import RowMetrics
from service.problems import ServiceError, TooManyRequests, Unauthorized, Unavailable, documented, problem

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


class Part(BaseModel):
    """Something that the service depends on."""

    ok: bool
    reason: str | None = Field(None, description="What is wrong with it.")


class Ready(BaseModel):
    """Whether jobs can be taken and run."""

    ready: bool
    database: Part
    store: Part
    ray: Part


class Version(BaseModel):
    """What runs here."""

    name: str = "secateur"
    version: str


@router.get("/livez")
def livez() -> Alive:
    """The process is up."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses=documented(Unavailable))
def readyz(request: Request, context: InService) -> Any:
    """Whether database, store and Ray can be used. While Ray alone is not ready, jobs are taken and wait.

    The problem of a service that is not ready has these members too.
    """
    parts = {"database": _database(context), "store": _store(context), "ray": _ray(context)}
    ready = Ready(ready=all(part.ok for part in parts.values()), **parts)
    if ready.ready:
        return ready
    reasons = " ".join(part.reason for part in parts.values() if part.reason is not None)
    return problem(request, 503, Unavailable.title, reasons, Unavailable.headers, **ready.model_dump())


@router.get("/version")
def get_version() -> Version:
    """The service's version."""
    return Version(version=version("secateur"))


@router.get(
    "/metrics",
    dependencies=[Depends(require_access_or_loopback)],
    openapi_extra={"security": [{}]},  # or nothing, from this machine
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."},
        **documented(Unauthorized, TooManyRequests, Unavailable),
    },
)
def get_metrics(context: InService) -> Response:
    """Totals for Prometheus: jobs and trials by state, evaluations, queue, workers, calls. From this machine without a key."""
    rows = CollectorRegistry()
    rows.register(RowMetrics(context.database))
    text = generate_latest(context.requests.registry) + generate_latest(rows)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _database(context: Context) -> Part:
    try:
        context.database.check()
    except ServiceError as error:
        return Part(ok=False, reason=str(error))
    return Part(ok=True)


def _store(context: Context) -> Part:
    try:
        context.store.check()
    except ServiceError as error:
        return Part(ok=False, reason=str(error))
    return Part(ok=True)


def _ray(context: Context) -> Part:
    problem = context.dispatcher.problem
    return Part(ok=problem is None, reason=problem)
