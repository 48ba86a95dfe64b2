"""``/keys``, for the administrator."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.auth import ADMINISTRATION
from service.context import InContext
from service.keys.repository import KeyRepository
from service.keys.schemas import KeyRequest, KeyView, NewKeyView
from service.pages import After, Limit, Page
from service.problems import NotFound, documented
from service.users.repository import Quotas

router = APIRouter(prefix="/keys", tags=[ADMINISTRATION])


@router.post("", status_code=201)
def post_key(sent: KeyRequest, response: Response, context: InContext) -> NewKeyView:
    """Makes an API key. Its text is in this answer and nowhere else."""
    settings = context.settings
    quotas = Quotas(settings.user_max_jobs, settings.user_max_trials, settings.user_max_bytes)
    key, text = KeyRepository(context.database).create(sent.user, sent.scope, sent.name or sent.user, quotas)
    response.headers["Location"] = f"/keys/{key.id}"
    return NewKeyView.of(key, key=text)


@router.get("")
def get_keys(context: InContext, limit: Limit = 50, after: After = None) -> Page[KeyView]:
    """All API keys, newest first, with their last use; never their text."""
    rows, following = KeyRepository(context.database).page(limit, after)
    return Page(items=[KeyView.of(row) for row in rows], next=following)


@router.get("/{key_id}", responses=documented(NotFound))
def get_key(key_id: str, context: InContext) -> KeyView:
    """One API key."""
    return KeyView.of(KeyRepository(context.database).get(key_id))


@router.delete("/{key_id}", responses=documented(NotFound))
def delete_key(key_id: str, context: InContext) -> KeyView:
    """Revokes an API key at once and for good. Asking twice is the same as asking once."""
    return KeyView.of(KeyRepository(context.database).revoke(key_id))
