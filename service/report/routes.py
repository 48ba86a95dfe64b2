"""``GET /jobs/{id}/report``."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from service.context import InContext
from service.datasets.repository import datasets
from service.jobs.repository import JobRepository
from service.jobs.views import checkpoint_views, job_view
from service.models.repository import models
from service.problems import Conflict, NotFound, documented
from service.report.build import report

router = APIRouter(prefix="/jobs", tags=["jobs"])

# The document brings its style along and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@router.get("/{job_id}/report", response_class=HTMLResponse, responses=documented(NotFound, Conflict))
def get_report(job_id: str, context: InContext) -> HTMLResponse:
    """A job that succeeded as one HTML file that needs nothing else, to keep or to send. The `ETag` is its sha256."""
    jobs = JobRepository(context.database)
    job, summary = jobs.get_with_summary(job_id)
    if job.best is None:
        raise Conflict(f"Job {job.id} is {job.state} and has no report; it has one once it succeeded.")
    page = report(
        job_view(job, summary),
        summary,
        jobs.trials_of([job]).get(job.id, []),
        jobs.progress_of(job.id),
        models(context.database).get(job.model_id),
        datasets(context.database).get(job.dataset_id),
        checkpoint_views(job, jobs.checkpoints(job.id)),
    )
    sha256 = hashlib.sha256(page.encode()).hexdigest()
    return HTMLResponse(page, headers={"ETag": f'"{sha256}"', "Content-Security-Policy": _POLICY})
