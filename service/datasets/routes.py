"""``/datasets``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.context import InContext
from service.datasets.repository import datasets
from service.datasets.schemas import DatasetView
from service.pages import After, Limit, Page
from service.problems import Conflict, NotFound, documented
from service.uploads import RAW_BODY, REFUSALS, Name, received, register

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    openapi_extra=RAW_BODY,
    responses={
        200: {"model": DatasetView, "description": "These bytes were known."},
        **REFUSALS,
    },
)
async def post_dataset(request: Request, response: Response, context: InContext, name: Name | None = None) -> DatasetView:
    """Takes a data set as the raw body, inspects and unpacks it. The same bytes give the same id.

    It is an `.npz` archive with `x_train, y_train, x_test, y_test` and optionally `x_val, y_val`, a `.parquet` file with the
    columns `image` and optionally `label` and `split`, or a `.tar` archive of class folders. Labels may be left out altogether.
    """
    async with received(request, context, "data", context.settings.max_dataset_bytes) as upload:
        row, new = await register(context, datasets(context.database), "data", upload, name)
    if not new:
        response.status_code = 200
    return DatasetView.of(row)


@router.get("")
def get_datasets(context: InContext, limit: Limit = 50, after: After = None) -> Page[DatasetView]:
    """All data sets, newest first."""
    rows, following = datasets(context.database).page(limit, after)
    return Page(items=[DatasetView.of(row) for row in rows], next=following)


@router.delete("/{dataset_id}", status_code=204, responses=documented(NotFound, Conflict))
def delete_dataset(dataset_id: str, context: InContext) -> None:
    """Forgets a data set that no job has, which makes room in its owner's quota. `secateur gc` then frees the file's space."""
    datasets(context.database).delete(dataset_id)


@router.get("/{dataset_id}", responses=documented(NotFound))
def get_dataset(dataset_id: str, context: InContext) -> DatasetView:
    """One data set: its splits, shape and labels."""
    return DatasetView.of(datasets(context.database).get(dataset_id))
