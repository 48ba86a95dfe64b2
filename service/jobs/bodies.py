"""Reads the body of ``POST /jobs``: JSON, or a form of two files and that JSON."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pruners.errors import InvalidInput
from service.body import JSON_BYTES, announced_size, limited, read_json, strict_json
from service.context import Context
from service.datasets.repository import datasets
from service.jobs.schemas import JobRequest
from service.models.repository import models
from service.problems import TooLarge, WrongMediaType
from service.uploads import received_part, register
from workers.refusal import paths, refusal

FORM = "multipart/form-data"

_FIELDS = paths(JobRequest)


async def read_request(request: Request, context: Context) -> JobRequest:
    """The job that was sent; files of a form are stored and inspected on the way.

    Raises:
        InvalidInput: a part is missing, is not JSON, or holds a field that is wrong; or a file was refused.
        TooLarge: one of the operator's limits.
        WrongMediaType: neither JSON nor a form.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type == FORM:
        async with _form(request, context) as form:
            return await _from_form(form, context)
    if media_type != "application/json":
        raise WrongMediaType(f"A job is sent as application/json or {FORM}, not as {media_type[:80]!r}.")
    return _validated(await read_json(request, context.settings))


def fingerprint(request: JobRequest) -> str:
    """The same for two requests that ask for the same: what an ``Idempotency-Key`` is compared by."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()


async def _from_form(form: FormData, context: Context) -> JobRequest:
    for name in form:
        if name not in ("model", "data", "job"):
            raise InvalidInput(name, None, "is not a part of this form; send model, data and job")
    part = form.get("job")
    text = await part.read(JSON_BYTES + 1) if isinstance(part, UploadFile) else (part or "{}").encode()
    if len(text) > JSON_BYTES:
        raise TooLarge("job", JSON_BYTES)
    fields = strict_json("job", text)
    for name in ("model", "dataset"):
        if name in fields:
            raise InvalidInput(f"job.{name}", fields[name], "is given beside a file; leave it out, or post JSON")
    _validated({**fields, "model": "", "dataset": ""})  # before the files are worked on
    settings = context.settings
    async with received_part(_file(form, "model"), context.store, "model", settings.max_model_bytes) as upload:
        model, _ = await register(context, models(context.database), "model", upload, None)
    async with received_part(_file(form, "data"), context.store, "data", settings.max_dataset_bytes) as upload:
        dataset, _ = await register(context, datasets(context.database), "data", upload, None)
    return _validated({**fields, "model": model.id, "dataset": dataset.id})


def _validated(fields: Mapping[str, Any]) -> JobRequest:
    try:
        return JobRequest.model_validate(fields)
    except ValidationError as error:
        raise refusal([_discreet(found) for found in error.errors()], known=_FIELDS) from None


def _discreet(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the value where that is, or holds, a secret: an error repeats what it refuses."""
    secret = error["loc"][:1] == ("webhook",) and error["loc"][1:2] not in (("url",), ("events",))
    return {**error, "input": None} if secret else error


def _file(form: FormData, name: str) -> UploadFile:
    part = form.get(name)
    if not isinstance(part, UploadFile):
        raise InvalidInput(name, part, f"is missing; attach the file: -F {name}=@FILE")
    return part


@asynccontextmanager
async def _form(request: Request, context: Context) -> AsyncGenerator[FormData]:
    """The form, spooled to temporary files that are gone at the end."""
    settings = context.settings
    most = settings.max_model_bytes + settings.max_dataset_bytes + 2 * JSON_BYTES  # the second for the parts' headers
    announced_size(request, "body", most)
    body = limited(request, context.settings, most)
    parser = MultiPartParser(request.headers, body, max_files=3, max_fields=3, max_part_size=JSON_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidInput("body", None, f"is not a readable form: {error}") from error
    try:
        yield form
    finally:
        await form.close()
