"""``/models``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.context import InContext
from service.models.repository import models
from service.models.schemas import ModelView
from service.pages import After, Limit, Page
from service.problems import Conflict, NotFound, documented
from service.uploads import RAW_BODY, REFUSALS, Name, received, register

router = APIRouter(prefix="/models", tags=["models"])


@router.post(
    "",
    status_code=201,
    openapi_extra=RAW_BODY,
    responses={
        200: {"model": ModelView, "description": "These bytes were known."},
        **REFUSALS,
    },
)
async def post_model(request: Request, response: Response, context: InContext, name: Name | None = None) -> ModelView:
    """Takes a `.pt2` file as the raw body, inspects it and says what can be pruned. The same bytes give the same id."""
    async with received(request, context, "model", context.settings.max_model_bytes) as upload:
        row, new = await register(context, models(context.database), "model", upload, name)
    if not new:
        response.status_code = 200
    return ModelView.of(row)


@router.get("")
def get_models(context: InContext, limit: Limit = 50, after: After = None) -> Page[ModelView]:
    """All models, newest first."""
    rows, following = models(context.database).page(limit, after)
    return Page(items=[ModelView.of(row) for row in rows], next=following)


@router.delete("/{model_id}", status_code=204, responses=documented(NotFound, Conflict))
def delete_model(model_id: str, context: InContext) -> None:
    """Forgets a model that no job has, which makes room in its owner's quota. `secateur gc` then frees the file's space."""
    models(context.database).delete(model_id)


@router.get("/{model_id}", responses=documented(NotFound))
def get_model(model_id: str, context: InContext) -> ModelView:
    """One model: its costs, and its groups with the reason where one is frozen."""
    return ModelView.of(models(context.database).get(model_id))
