"""What models and data sets have in common: bytes in, inspected, kept once under one id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query, Request
from pydantic import AfterValidator
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from pruners.cost import ENGINE
from pruners.errors import InvalidInput
from service.body import announced, chunks
from service.context import Context
from service.database import Database
from service.database.tables import NAME_LENGTH, Dataset, Job, Model, is_id, new_id
from service.inspection import Kind
from service.pages import newest_first
from service.problems import Conflict, Forbidden, NotFound, StorageFull, TooLarge, TooSlow, WrongMediaType, documented
from service.store import Blob, Store, Upload
from service.users.quotas import QuotaUsedUp, admit_upload
from workers.formats.convert import VERSION

_CHUNK = 2**20  # bytes of a form's file that are copied at once

Table = TypeVar("Table", bound=Model | Dataset)

_JOBS_OF = {Model: Job.model_id, Dataset: Job.dataset_id}


def printable(name: str) -> str:
    """The name, if it is one that can be shown; raises ``ValueError``."""
    if not name.strip() or not name.isprintable():
        raise ValueError("use letters, digits, spaces and punctuation alone")
    return name


Name = Annotated[str, AfterValidator(printable), Query(max_length=NAME_LENGTH, description="For people; never a path.")]


class UploadRepository(Generic[Table]):
    """Rows of one kind of upload.

    Args:
        table: the kind.
        word: the kind in error messages and ids, ``"model"`` or ``"dataset"``.
    """

    def __init__(self, database: Database, table: type[Table], word: str) -> None:
        self._database = database
        self._table = table
        self._word = word

    def get(self, upload_id: str) -> Table:
        """The row of that id; raises ``NotFound``."""
        with self._database.read() as session:
            row = session.get(self._table, upload_id) if is_id(upload_id) else None
        if row is None:
            raise NotFound(self._word, upload_id)
        return row

    def page(self, limit: int, after: str | None) -> tuple[Sequence[Table], str | None]:
        """Newest first."""
        with self._database.read() as session:
            return newest_first(session, select(self._table), self._table.id, limit, after)

    def known(self, sha256: str, name: str | None) -> Table | None:
        """The row of these bytes, renamed if a name is given."""
        with self._database.write() as session:
            mine = self._table.owner == self._database.owner  # an administrator finds others' too
            row = session.scalar(select(self._table).where(mine, self._table.sha256 == sha256))
            if row is not None and name is not None:
                row.name = name
            return row

    def renew(self, upload_id: str, inspection: dict[str, Any]) -> Table:
        """The row with a new inspection."""
        with self._database.write() as session:
            row = session.get_one(self._table, upload_id)
            row.inspection = inspection
            return row

    def delete(self, upload_id: str) -> None:
        """Forgets an upload that no job has; raises ``NotFound``, and ``Conflict`` where one does."""
        jobs = select(func.count()).select_from(Job).where(_JOBS_OF[self._table] == upload_id)
        with self._database.write() as session:
            row = session.get(self._table, upload_id, with_for_update=True) if is_id(upload_id) else None
            if row is None:
                raise NotFound(self._word, upload_id)
            if count := session.scalars(jobs).one():
                raise Conflict(f"{self._word} {upload_id} is needed by {count} jobs; delete those first.")
            session.delete(row)

    def add(self, blob: Blob, name: str | None, inspection: dict[str, Any]) -> tuple[Table, bool]:
        """The row of these bytes and whether it is new: of two uploads at once, one makes it."""
        row = self._table(
            id=new_id(self._word),
            sha256=blob.sha256,
            size=blob.size,
            name=name or f"{self._word} {blob.sha256[:8]}",
            inspection=inspection,
        )
        try:
            with self._database.write() as session:
                admit_upload(session, self._database.owner, blob.size + inspection.get("arrays_bytes", 0))
                session.add(row)
        except IntegrityError:
            known = self.known(blob.sha256, name)
            if known is None:
                raise
            return known, False
        return row, True


def check_room(database: Database, size: int) -> None:
    """Raises ``QuotaUsedUp`` before a file is sent that its owner may not keep; what is kept is counted again then."""
    with database.read() as session:
        admit_upload(session, database.owner, size)


def stale(kind: Kind, inspection: Mapping[str, Any]) -> bool:
    """Whether an inspection is by other rules than today's: jobs would see other groups than it lists."""
    return inspection.get("engine") != ENGINE if kind == "model" else inspection.get("version") != VERSION


async def register(
    context: Context, rows: UploadRepository[Table], kind: Kind, upload: Upload, name: str | None
) -> tuple[Table, bool]:
    """Takes a received file over: its row, and whether it is new.

    Bytes that are known are inspected again only if their inspection is stale.

    Raises:
        InvalidInput: the inspection refused the file; nothing is kept of it.
    """
    blob = await run_in_threadpool(upload.complete)
    if blob.size == 0:
        raise InvalidInput(kind, None, "is empty; send the file's bytes")
    known = await run_in_threadpool(rows.known, blob.sha256, name)
    if known is not None and not stale(kind, known.inspection):
        return known, False
    found = await (_taken_in(context, upload) if kind == "data" else context.inspect(kind, upload.path))
    if known is not None:
        return await run_in_threadpool(rows.renew, known.id, found), False
    await run_in_threadpool(upload.keep)
    return await run_in_threadpool(rows.add, blob, name, found)


async def _taken_in(context: Context, upload: Upload) -> dict[str, Any]:
    """What a data set holds; its arrays, as jobs read them, are in the store under the sha256 ``arrays``, ``arrays_bytes``."""
    with context.store.receive("data") as arrays:
        found = await context.inspect("data", upload.path, arrays.path)
        await run_in_threadpool(arrays.reread)
        kept = await run_in_threadpool(arrays.keep)
    return {**found, "arrays": kept.sha256, "arrays_bytes": kept.size}


@asynccontextmanager
async def received(request: Request, context: Context, field: str, limit: int) -> AsyncIterator[Upload]:
    """The request's raw body as an upload, held to what its headers announce; raises as ``service.body`` does."""
    said = announced(request, field, limit)
    context.store.check_room(said.size or 0)
    with context.store.receive(field, limit) as upload:
        async for chunk in chunks(request, context.settings):
            await run_in_threadpool(upload.write, chunk)
        said.check(upload.blob.size, upload.blob.sha256)
        yield upload


@asynccontextmanager
async def received_part(part: UploadFile, store: Store, field: str, limit: int) -> AsyncIterator[Upload]:
    """A file of a multipart form as an upload; raises ``TooLarge``."""
    with store.receive(field, limit) as upload:
        while chunk := await part.read(_CHUNK):
            await run_in_threadpool(upload.write, chunk)
        yield upload


RAW_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": "Content-Digest",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "Of the body, by RFC 9530: `sha-256=:BASE64:`; a body that arrives otherwise is refused.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    },
}
"""OpenAPI's description of a raw upload."""

REFUSALS = documented(Forbidden, QuotaUsedUp, TooSlow, TooLarge, WrongMediaType, StorageFull)
"""How an upload may end, besides what every call may."""
