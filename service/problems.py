"""Errors over HTTP, each an ``application/problem+json`` document (RFC 9457) with one clear sentence.

pruners.errors.SecateurError
├── pruners.errors.InvalidInput   422  names the field, its value and the remedy
└── ServiceError                       status, title and type on the class
    ├── Unauthorized              401
    ├── Forbidden                 403  a key whose scope does not reach so far; service.users.quotas.QuotaUsedUp
    ├── NotFound                  404  also what is another user's
    ├── Conflict                  409
    ├── BrokenOff                 400  the connection ended before the body did; nobody is left to read this
    ├── TooSlow                   408
    ├── TooLarge                  413
    ├── WrongMediaType            415
    ├── BadRange                  416
    ├── KeyReused                 422  one Idempotency-Key, two different jobs
    ├── TooManyRequests           429
    ├── Unavailable               503  service.database.DatabaseAway, service.store.StoreAway and Ray's are such
    ├── StorageFull               507
    └── service.store.Damaged     500  a stored file is not what was stored
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from pruners.errors import InvalidInput, SecateurError
from workers.refusal import refusal

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger()


class ServiceError(SecateurError):
    """Base of the API's errors; the text is the problem's ``detail``, of which ``example`` shows one."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    title: str = "Internal error"
    example: str = "The service met an error of its own; its log has the details under this request_id."
    headers: Mapping[str, str] = MappingProxyType({})


class Unauthorized(ServiceError):
    """No token, or not ours."""

    status = HTTPStatus.UNAUTHORIZED
    title = "Not authorised"
    example = "Authorization is missing; send the header 'Authorization: Bearer TOKEN'."
    headers: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": 'Bearer realm="secateur"'})


class Forbidden(ServiceError):
    """A key that is ours, but not for this."""

    status = HTTPStatus.FORBIDDEN
    title = "Not allowed"
    example = "This takes a key of scope submit, and yours has read; ask the administrator for one."


class NotFound(ServiceError):
    """No such resource."""

    status = HTTPStatus.NOT_FOUND
    title = "Not found"
    example = "There is no job 'job-7'; GET /jobs lists those there are."

    def __init__(self, kind: str, name: str, listing: str | None = None) -> None:
        listing = listing or f"/{kind}s"
        super().__init__(f"There is no {kind} {name[:80]!r}; GET {listing} lists those there are.")


class Conflict(ServiceError):
    """Not possible in the resource's present state."""

    status = HTTPStatus.CONFLICT
    title = "Not possible now"
    example = "Job job-18c1b5a0c3d2e1f0a1b2c3d4 is running; cancel it before it is deleted."


class TooLarge(ServiceError):
    """More bytes than the operator accepts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "Too large"
    example = "model is larger than the 2,147,483,648 bytes that this server accepts; send a smaller one."

    def __init__(self, field: str, limit: int) -> None:
        super().__init__(f"{field} is larger than the {limit:,} bytes that this server accepts; send a smaller one.")


class BrokenOff(ServiceError):
    """A body that did not come to its end."""

    status = HTTPStatus.BAD_REQUEST
    title = "Broken off"


class TooSlow(ServiceError):
    """A body that takes longer to arrive than any honest line needs."""

    status = HTTPStatus.REQUEST_TIMEOUT
    title = "Too slow"
    example = "model arrives more slowly than this server waits for; send it in parts by POST /uploads, over a better line."


class WrongMediaType(ServiceError):
    """A body in a form that this call does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    title = "Wrong media type"
    example = "A job is sent as application/json or multipart/form-data, not as 'text/yaml'."


class BadRange(ServiceError):
    """A ``Range`` that is none, or lies outside of the file."""

    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    title = "Range not satisfiable"
    example = "Range 'bytes=9000000-' does not fit this file; leave it out for the whole file."


class KeyReused(ServiceError):
    """An ``Idempotency-Key`` that an earlier, different request used."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Idempotency-Key used before"
    example = (
        "Idempotency-Key 'k-1' made job job-18c1b5a0c3d2e1f0a1b2c3d4 from a different request; send another for a new job."
    )


class TooManyRequests(ServiceError):
    """Faster than the operator allows; ``seconds`` until the next call is answered."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests"
    example = "That was one call too many; the next one is answered in 2 s."
    headers: Mapping[str, str] = MappingProxyType({"Retry-After": "2"})

    def __init__(self, seconds: float) -> None:
        super().__init__(f"That was one call too many; the next one is answered in {math.ceil(seconds)} s.")
        self.headers = {"Retry-After": str(math.ceil(seconds))}


class Unavailable(ServiceError):
    """Something that the service depends on does not answer; trying again may help."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Temporarily unavailable"
    example = "The database does not answer; try again in a moment."
    headers: Mapping[str, str] = MappingProxyType({"Retry-After": "5"})  # seconds; a database restart takes about that


class StorageFull(ServiceError):
    """A disk of the service's is full; nothing that was kept is lost."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    title = "Storage full"
    example = "The disk of the store is full; free some space and try again."


class Problem(BaseModel):
    """An error, as every call returns it; some kinds have more members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Which kind of error.", examples=["urn:secateur:problem:invalid-input"])
    title: str = Field(description="The kind in words.", examples=["Invalid input"])
    status: int = Field(examples=[422])
    detail: str = Field(
        description="One sentence: what is wrong and what to do.",
        examples=["budget.ratio 1.5 should be less than 1."],
    )
    instance: str = Field(description="The path that was called.", examples=["/jobs"])
    request_id: str | None = Field(None, description="To be quoted to the operator; also in the server's log.")
    field: str | None = Field(None, description="What to change, by the name it was sent under.")
    errors: list[dict[str, str]] | None = Field(None, description="Every refused field, where several are known.")


def documented(*errors: type[ServiceError] | type[InvalidInput]) -> dict[int | str, dict[str, Any]]:
    """FastAPI's ``responses`` for a route that may end in these errors, with an example of each."""
    documents: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        if issubclass(error, InvalidInput):
            example, headers = (
                _document(422, "Invalid input", "budget.ratio 1.5 should be less than 1.", field="budget.ratio"),
                {},
            )
        else:
            example, headers = _document(int(error.status), error.title, error.example), dict(error.headers)
        response = documents.setdefault(
            example["status"],
            {"description": "", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}},
        )
        title = example["title"]
        response["description"] += f" or {title[0].lower()}{title[1:]}" if response["description"] else title
        response["content"][MEDIA_TYPE]["examples"][title] = {"value": example}
        if headers:
            response["headers"] = {name: {"schema": {"type": "string"}, "example": value} for name, value in headers.items()}
    return documents


def _document(status: int, title: str, detail: str, instance: str = "/jobs", **members: Any) -> dict[str, Any]:
    kind = f"urn:secateur:problem:{title.lower().replace(' ', '-')}"
    made = Problem(type=kind, title=title, status=status, detail=detail, instance=instance, **members)
    return made.model_dump(exclude_none=True)


def problem(
    request: Request, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """A problem document as a response."""
    body = _document(status, title, detail, request.url.path, request_id=request.scope.get("request_id"), **members)
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def unexpected(request: Request) -> JSONResponse:
    """What a caller sees of a fault of ours; the trace is in the log, under the same request id."""
    detail = "The service met an error of its own; its log has the details under this request_id."
    return problem(request, 500, "Internal error", detail)


def install(app: FastAPI) -> None:
    """Makes the app answer every error with a problem document."""
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(InvalidInput)(_invalid_input)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_exception)


async def _service_error(request: Request, error: ServiceError) -> JSONResponse:
    if error.__cause__ is not None:
        log.warning("unavailable", reason=str(error), cause=repr(error.__cause__)[:500])
    return problem(request, int(error.status), error.title, str(error), error.headers)


async def _invalid_input(request: Request, error: InvalidInput) -> JSONResponse:
    return problem(request, 422, "Invalid input", str(error), field=error.field)


async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """Of a parameter, or of a small body of JSON; files and jobs are read by their routes."""
    refusals = [refusal([{**found, "loc": _place(found)}]) for found in error.errors()]
    errors = [{"field": found.field, "detail": str(found)} for found in refusals]
    return problem(request, 422, "Invalid input", str(refusals[0]), field=refusals[0].field, errors=errors)


def _place(error: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where an error is, without the kind of place; what is no JSON at all is the body's."""
    return () if error["type"] == "json_invalid" else tuple(error["loc"][1:])


async def _http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """Unknown paths and methods, and what FastAPI says of a body that is no text."""
    if error.status_code == 400:
        return await _invalid_input(request, InvalidInput("body", None, "is not valid JSON; send an object, in UTF-8"))
    title = HTTPStatus(error.status_code).phrase
    detail = {
        404: f"There is nothing at {request.url.path}; /docs lists the calls.",
        405: f"{request.method} is not possible on {request.url.path}; /docs lists what is.",
    }.get(error.status_code, str(error.detail))
    headers = {**(error.headers or {}), **({"Allow": ", ".join(_allowed(request))} if error.status_code == 405 else {})}
    return problem(request, error.status_code, title, detail, headers)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at a path; Starlette names those of the first."""
    paths = request.app.openapi()["paths"].items()
    fitting = [methods for template, methods in paths if compile_path(template)[0].fullmatch(request.url.path)]
    return sorted({method.upper() for methods in fitting for method in methods})
