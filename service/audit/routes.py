"""``/audit``, for the administrator."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from service.audit.schemas import AuditView
from service.auth import ADMINISTRATION
from service.context import InContext
from service.database.tables import AuditEntry
from service.pages import After, Limit, Page, oldest_first

router = APIRouter(prefix="/audit", tags=[ADMINISTRATION])


@router.get("")
def get_audit(context: InContext, limit: Limit = 100, after: After = None) -> Page[AuditView]:
    """Every call that was to change something, oldest first: who, what, from where, and what it was answered."""
    with context.database.read() as session:
        rows, following = oldest_first(session, select(AuditEntry), AuditEntry.id, limit, after)
    return Page(items=[AuditView.of(row) for row in rows], next=following)
