"""Lists in pages: ``limit`` and ``after`` in, ``{"items", "next"}`` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, Select, literal
from sqlalchemy.orm import InstrumentedAttribute, Session

from pruners.errors import InvalidInput

LARGEST_PAGE = 500  # items; a page of trials is then some 300 kB

Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Items in the page, at most.")]
CURSOR = "^[a-z0-9-]{1,40}$"
After = Annotated[str | None, Query(pattern=CURSOR, description="The `next` of the page before; unset: the first page.")]

Row = TypeVar("Row")
Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """A part of a list."""

    items: list[Item]
    next: str | None = Field(description="To be sent as `after` for the following page; null: this is the last.")


def newest_first(
    session: Session, statement: Select[Row], key: InstrumentedAttribute[str], limit: int, after: str | None
) -> tuple[Sequence[Row], str | None]:
    """One page in falling order of ``key``, an id, and the cursor of the next page."""
    if after is not None:
        statement = statement.where(key < after)
    rows = session.scalars(statement.order_by(key.desc()).limit(limit + 1)).all()
    return _cut(rows, limit, lambda row: str(getattr(row, key.key)))


def oldest_first(
    session: Session, statement: Select[Row], key: InstrumentedAttribute[int], limit: int, after: str | None
) -> tuple[Sequence[Row], str | None]:
    """One page in rising order of ``key``, a number, and the cursor of the next page."""
    if after is not None:
        if not (after.isascii() and after.isdigit() and len(after) < 19):  # 19 digits may not fit the database's integer
            raise InvalidInput("after", after, "is no cursor; send the next of the page before, or leave it out")
        statement = statement.where(key > literal(int(after), BigInteger))  # it may not fit the column's type
    rows = session.scalars(statement.order_by(key).limit(limit + 1)).all()
    return _cut(rows, limit, lambda row: str(getattr(row, key.key)))


def _cut(rows: Sequence[Row], limit: int, cursor: Callable[[Any], str]) -> tuple[Sequence[Row], str | None]:
    """One row more than the page was asked for, so that the last page is known to be the last."""
    return (rows[:limit], cursor(rows[limit - 1])) if len(rows) > limit else (rows, None)
