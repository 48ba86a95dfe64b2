"""The API: its parts put together, from start to shutdown. Imports neither torch nor ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from pruners.errors import InvalidInput
from service import algorithms, health, problems
from service.auth import admin_token, require_token
from service.body import ClosesUnread
from service.context import Catalogue, Context
from service.database import Database
from service.database.migrate import upgrade
from service.datasets import routes as datasets
from service.dispatcher import Dispatcher, Ray, make_ray
from service.inspection import Inspect, LimitedProcess
from service.jobs import routes as jobs
from service.jobs.schemas import JobRequest
from service.models import routes as models
from service.problems import Problem, Unauthorized, documented
from service.requests import RequestLog
from service.settings import Settings
from service.store import Store
from service.transfers import routes as transfers
from service.transfers.schemas import TransferRequest

SCHEMA_REF = "#/components/schemas/{model}"


def create_app(settings: Settings, *, inspect: Inspect | None = None, ray: Ray | None = None) -> FastAPI:
    """The service as an ASGI app.

    Args:
        settings: where everything lies.
        inspect: looks into uploads; by default in a limited process.
        ray: runs the jobs; by default the cluster that the settings name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context = _open(settings, inspect or LimitedProcess(settings), ray or make_ray(settings))
        app.state.context, app.state.token = context, admin_token(settings)
        context.catalogue.prepare()
        dispatching = asyncio.create_task(context.dispatcher.run())
        try:
            yield
        finally:
            dispatching.cancel()
            await asyncio.gather(dispatching, return_exceptions=True)
            await context.catalogue.close()
            await context.dispatcher.close()
            context.database.close()

    app = _Api(
        title="Secateur",
        summary="Compresses trained PyTorch networks.",
        version=version("secateur"),
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(health.router)
    for protected in (models.router, datasets.router, transfers.router, jobs.router, algorithms.router):
        app.include_router(protected, dependencies=[Depends(require_token)], responses=documented(Unauthorized, InvalidInput))
    problems.install(app)
    app.add_middleware(ClosesUnread)
    app.add_middleware(RequestLog)
    return app


class _Api(FastAPI):
    """Adds to the OpenAPI document what the routes read and write by hand."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            components = super().openapi()["components"]["schemas"]
            for model in (JobRequest, TransferRequest, Problem):
                schema = model.model_json_schema(ref_template=SCHEMA_REF)
                for name, definition in schema.pop("$defs", {}).items():
                    components.setdefault(name, definition)
                components[model.__name__] = schema
        return super().openapi()


def _open(settings: Settings, inspect: Inspect, ray: Ray) -> Context:
    database = Database(settings.database)
    upgrade(database)
    return Context(
        settings=settings,
        database=database,
        store=Store(settings.store_dir),
        inspect=inspect,
        catalogue=Catalogue(inspect),
        dispatcher=Dispatcher(database, ray, settings.max_running_jobs),
    )
