"""``/uploads``: begin, send parts, ask how far it is, finish.

A part that breaks off leaves what arrived of it. The client then asks for the offset and goes on from there.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from pruners.errors import InvalidInput
from service.body import announced, chunks, read_json
from service.context import Context, InContext
from service.datasets.repository import datasets
from service.datasets.schemas import DatasetView
from service.inspection import Kind as Inspected
from service.models.repository import models
from service.models.schemas import ModelView
from service.problems import Conflict, NotFound, StorageFull, TooLarge, TooSlow, WrongMediaType, documented
from service.transfers.files import Kind, Transfer, Transfers, WrongOffset
from service.transfers.schemas import TransferRequest, TransferView
from service.uploads import RAW_BODY, check_room, register
from workers.refusal import refusal

router = APIRouter(prefix="/uploads", tags=["uploads"])

_OFFSET = "Upload-Offset"

Offset = Annotated[int, Header(alias=_OFFSET, ge=0, lt=2**63, description="Where in the whole this part begins.")]


_LINKED = ("get_upload", "patch_upload", "finish_upload", "delete_upload")  # calls that a new upload's id is for


@router.post(
    "",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TransferRequest"}}},
        }
    },
    responses={
        200: {"model": TransferView, "description": "It was begun already; go on at `offset`."},
        201: {"links": {name: {"operationId": name, "parameters": {"upload_id": "$response.body#/id"}} for name in _LINKED}},
        **documented(Conflict, TooLarge, TooSlow, StorageFull),
    },
)
async def post_upload(request: Request, response: Response, context: InContext) -> TransferView:
    """Begins the upload of a large file in parts. The same announcement gives the same upload, for a day after its last part.

    Send the file's bytes by `PATCH /uploads/{id}`, in as many parts as you like, and end with `POST /uploads/{id}/finish`.
    """
    try:
        sent = TransferRequest.model_validate(await read_json(request, context.settings))
    except ValidationError as error:
        raise refusal(error.errors()) from error
    if sent.size > _limit(context, sent.kind):
        raise TooLarge(sent.kind, _limit(context, sent.kind))
    check_room(context.database, sent.size)
    transfers = _transfers(context)
    transfer, new = await run_in_threadpool(_begun, context, transfers, sent)
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/uploads/{transfer.id}"
    return await run_in_threadpool(_view, response, transfers, transfer.id)


@router.get("/{upload_id}", responses=documented(NotFound))
def get_upload(upload_id: str, response: Response, context: InContext) -> TransferView:
    """How far an upload is; `Upload-Offset` says it too."""
    return _view(response, _transfers(context), upload_id)


@router.patch(
    "/{upload_id}",
    openapi_extra=RAW_BODY,
    responses=documented(NotFound, Conflict, TooLarge, TooSlow, WrongMediaType, StorageFull),
)
async def patch_upload(
    upload_id: str, request: Request, response: Response, context: InContext, offset: Offset
) -> TransferView:
    """Takes the next part as the raw body; 409 with `Upload-Offset` where it does not begin where the bytes so far end."""
    transfers = _transfers(context)
    transfer, there = await run_in_threadpool(transfers.get, upload_id)
    if offset != there:
        raise WrongOffset(there, offset)
    said = announced(request, "part", _limit(context, transfer.kind))
    end, digest = offset, sha256()
    beyond = InvalidInput("part", None, f"goes beyond the {transfer.size:,} bytes that were announced; send no more")
    if end + (said.size or 0) > transfer.size:
        raise beyond
    async for chunk in chunks(request, context.settings):
        if end + len(chunk) > transfer.size:
            raise beyond
        await run_in_threadpool(transfers.append, upload_id, end, chunk)
        digest.update(chunk)
        end += len(chunk)
    if end == offset:
        raise InvalidInput("part", None, "is empty; send some bytes")
    try:
        said.check(end - offset, digest.hexdigest())
    except InvalidInput:
        await run_in_threadpool(transfers.take_back, upload_id, offset)
        raise
    return await run_in_threadpool(_view, response, transfers, upload_id)


@router.post(
    "/{upload_id}/finish",
    status_code=201,
    responses={
        200: {"model": ModelView | DatasetView, "description": "These bytes were known."},
        **documented(NotFound, Conflict, StorageFull),
    },
)
async def finish_upload(upload_id: str, response: Response, context: InContext) -> ModelView | DatasetView:
    """Checks the whole against its sha256, inspects it, and answers as `POST /models` or `POST /datasets` would.

    An upload that is refused is gone. One that was finished may be asked for again for a day.
    """
    transfers = _transfers(context)
    transfer, there = await run_in_threadpool(transfers.get, upload_id)
    if there < transfer.size:
        raise Conflict(f"Upload {transfer.id} has {there:,} of {transfer.size:,} bytes; send the rest first.")
    if transfer.result is None:
        try:
            row, new = await _taken_over(context, transfers, transfer)
        except InvalidInput:
            await run_in_threadpool(transfers.drop, transfer.id)
            raise
        await run_in_threadpool(transfers.became, transfer, row.id)
    else:
        new, row = False, await run_in_threadpool(_rows(context, transfer.kind).get, transfer.result)
    if not new:
        response.status_code = 200
    return (ModelView if transfer.kind == "model" else DatasetView).of(row)


@router.delete("/{upload_id}", status_code=204, responses=documented(NotFound))
def delete_upload(upload_id: str, context: InContext) -> None:
    """Forgets an upload and what has arrived of it; a model or data set that it became stays."""
    transfers = _transfers(context)
    transfers.get(upload_id)
    transfers.drop(upload_id)


def _begun(context: Context, transfers: Transfers, sent: TransferRequest) -> tuple[Transfer, bool]:
    transfer, new = transfers.begin(sent.kind, sent.size, sent.sha256, sent.name)
    try:
        if not new and transfer.result is not None:
            _rows(context, transfer.kind).get(transfer.result)
    except NotFound:  # what it became was deleted since
        transfers.drop(transfer.id)
        return transfers.begin(sent.kind, sent.size, sent.sha256, sent.name)
    return transfer, new


async def _taken_over(context: Context, transfers: Transfers, transfer: Transfer) -> tuple[Any, bool]:
    with transfers.whole(transfer.id) as upload:
        blob = await run_in_threadpool(upload.reread)
        if blob.sha256 != transfer.sha256:
            problem = "is not that of the bytes that arrived; the upload is dropped, begin it again"
            raise InvalidInput("sha256", transfer.sha256, problem)
        kind: Inspected = "model" if transfer.kind == "model" else "data"
        return await register(context, _rows(context, transfer.kind), kind, upload, transfer.name)


def _transfers(context: Context) -> Transfers:
    return Transfers(context.store, owner=context.database.owner)


def _rows(context: Context, kind: Kind) -> Any:
    return models(context.database) if kind == "model" else datasets(context.database)


def _limit(context: Context, kind: Kind) -> int:
    return context.settings.max_model_bytes if kind == "model" else context.settings.max_dataset_bytes


def _view(response: Response, transfers: Transfers, upload_id: str) -> TransferView:
    transfer, there = transfers.get(upload_id)
    response.headers[_OFFSET] = str(there)
    return TransferView.of(transfer, there)
