"""``/users``, for the administrator, and ``/me``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from service.auth import ADMINISTRATION, Caller, require_access
from service.context import InContext
from service.pages import Page
from service.problems import NotFound, documented
from service.users.repository import UserRepository
from service.users.schemas import MeView, QuotaChange, UserView

router = APIRouter(prefix="/users", tags=[ADMINISTRATION])
own_router = APIRouter(tags=["users"])


@router.get("")
def get_users(context: InContext) -> Page[UserView]:
    """All users with their quotas and what they have, by name."""
    return Page(items=[UserView.of(*found) for found in UserRepository(context.database).all()], next=None)


@router.get("/{name}", responses=documented(NotFound))
def get_user(name: str, context: InContext) -> UserView:
    """One user."""
    return UserView.of(*UserRepository(context.database).get(name))


@router.patch("/{name}", responses=documented(NotFound))
def patch_user(name: str, sent: QuotaChange, context: InContext) -> UserView:
    """Changes a user's quotas; those that are left out stay. What a user has already is never taken away."""
    return UserView.of(*UserRepository(context.database).change(name, sent.model_dump(exclude_unset=True)))


@own_router.get("/me")
def get_me(context: InContext, caller: Annotated[Caller, Depends(require_access)]) -> MeView:
    """Whose key this is, what it is for, what its user may have and has."""
    view = UserView.of(*UserRepository(context.database).get(caller.user))
    return MeView(**view.model_dump(), scope=caller.scope, key_id=caller.key_id)
