"""The API: its parts put together, from start to shutdown. Imports neither torch nor ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from pruners.errors import InvalidInput
from service import algorithms, health, problems
from service.audit import routes as audit
from service.audit.middleware import Audit
from service.auth import ADMINISTRATION, admin_token, require_access, require_admin, scope_of
from service.body import ClosesUnread
from service.context import Catalogue, Context
from service.database import Database
from service.database.migrate import upgrade
from service.datasets import routes as datasets
from service.dispatcher import Dispatcher, Ray, make_ray
from service.inspection import Inspect, LimitedProcess
from service.jobs import routes as jobs
from service.jobs.schemas import JobRequest
from service.jobs.watch import Watch
from service.keys import routes as keys
from service.limits import RateLimits
from service.metrics import RequestMetrics
from service.models import routes as models
from service.problems import Forbidden, Problem, ServiceError, TooManyRequests, Unauthorized, Unavailable, documented
from service.report import routes as reports
from service.requests import RequestLog
from service.scopes import Scope
from service.settings import Settings
from service.store import open_store
from service.transfers import routes as transfers
from service.transfers.schemas import TransferRequest
from service.users import routes as users
from service.web import site
from service.webhooks.deliveries import Deliveries

SCHEMA_REF = "#/components/schemas/{model}"


def create_app(
    settings: Settings,
    *,
    inspect: Inspect | None = None,
    ray: Ray | None = None,
    leaving: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """The service as an ASGI app.

    Args:
        settings: where everything lies.
        inspect: looks into uploads; by default in a limited process.
        ray: runs the jobs; by default the cluster that the settings name.
        leaving: whether the server is about to end, so that streams are to do so by themselves.
    """
    requests = RequestMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context = _open(settings, inspect or LimitedProcess(settings), ray or make_ray(settings), requests, leaving)
        app.state.context, app.state.token = context, admin_token(settings)
        app.state.limits = RateLimits(settings.requests_per_second)
        context.catalogue.prepare()
        deliveries = Deliveries(context.database, settings.webhook_networks)
        running = [asyncio.create_task(work) for work in (context.dispatcher.run(), context.watch.run(), deliveries.run())]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await context.catalogue.close()
            await context.dispatcher.close()
            context.database.close()

    app = _Api(
        title="Secateur",
        summary="Compresses trained PyTorch networks.",
        version=version("secateur"),
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,  # operation ids that links and generated clients can be read by
        redoc_url=None,
    )
    app.include_router(health.router, responses=documented(ServiceError))
    refusals = documented(Unauthorized, Forbidden, InvalidInput, TooManyRequests, ServiceError, Unavailable)
    for protected in (
        models.router,
        datasets.router,
        transfers.router,
        jobs.router,
        reports.router,
        algorithms.router,
        users.own_router,
    ):
        app.include_router(protected, dependencies=[Depends(require_access)], responses=refusals)
    for administration in (keys.router, users.router, audit.router):
        app.include_router(administration, dependencies=[Depends(require_admin)], responses=refusals)
    site.install(app)
    problems.install(app)
    app.add_middleware(ClosesUnread)
    app.add_middleware(Audit)
    app.add_middleware(RequestLog, requests=requests)  # the outermost
    return app


class _Api(FastAPI):
    """Adds to the OpenAPI document what the routes read and write by hand."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            components = document["components"]["schemas"]
            for model in (JobRequest, TransferRequest, Problem):
                schema = model.model_json_schema(ref_template=SCHEMA_REF)
                for name, definition in schema.pop("$defs", {}).items():
                    components.setdefault(name, definition)
                components[model.__name__] = schema
            for methods in document["paths"].values():
                for method, operation in methods.items():
                    if "security" in operation:
                        operation["x-scope"] = Scope.ADMIN if ADMINISTRATION in operation["tags"] else scope_of(method)
        return super().openapi()


def _open(settings: Settings, inspect: Inspect, ray: Ray, requests: RequestMetrics, leaving: Callable[[], bool]) -> Context:
    database = Database(settings.database)
    upgrade(database)
    return Context(
        settings=settings,
        database=database,
        store=open_store(settings),
        inspect=inspect,
        catalogue=Catalogue(inspect),
        dispatcher=Dispatcher(database, ray, settings.max_running_jobs, requests.waited),
        requests=requests,
        watch=Watch(database, leaving),
    )
