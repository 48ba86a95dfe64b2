"""``/searchers`` and ``/pruners``: what a job may choose, with parameters as JSON Schema."""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from searchers import SEARCHERS
from service.context import InContext
from service.pages import Page
from service.problems import Unavailable, documented

router = APIRouter(tags=["algorithms"])


class Algorithm(BaseModel):
    """A searcher or pruner."""

    name: str = Field(examples=["netadapt"])
    description: str
    reference: str = Field(description="The paper or source.")
    params: dict[str, Any] = Field(description="JSON Schema of its parameters.")


@router.get("/searchers")
def get_searchers() -> Page[Algorithm]:
    """The search algorithms: which widths to try next."""
    items = [
        Algorithm(
            name=name,
            description=(inspect.getdoc(SEARCHERS[name]) or "").partition("\n")[0],
            reference=SEARCHERS[name].reference,
            params=SEARCHERS[name].Params.model_json_schema(),
        )
        for name in SEARCHERS
    ]
    return Page(items=items, next=None)


@router.get("/pruners", responses=documented(Unavailable))
async def get_pruners(context: InContext) -> Page[Algorithm]:
    """The pruners: criteria, which say what channels of a layer go first, and schedules, which train meanwhile."""
    return Page(items=[Algorithm.model_validate(found) for found in await context.catalogue.pruners()], next=None)
