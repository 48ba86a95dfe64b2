"""Who calls, and whether they may: the administrator's token, users' API keys and browsers' sessions, checked on every call.

Tokens and keys are random numbers of 256 bits. So their sha256 keeps them secret; a slow hash, which is there to make guesses
at passwords dear, would only make every call slow, since there is nothing to guess.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from service.database import Database
from service.database.tables import ADMIN
from service.keys.repository import KeyRepository, UsedKey
from service.problems import Forbidden, Unauthorized
from service.scopes import Scope
from service.sessions import CSRF_HEADER, Session, csrf_sent, csrf_token, same, session_of
from service.settings import Settings, is_loopback

TOKEN_BYTES = 32  # 256 bits: not to be guessed

ADMINISTRATION = "administration"
"""The tag of routes that take the scope ``admin``."""

_bearer = HTTPBearer(
    auto_error=False,
    description="An API key, or the administrator's token, which `secateur serve` prints at first start. A key of scope `read` "
    "may send GET, one of scope `submit` everything that is not the administrator's.",
)


@dataclass(frozen=True)
class Caller:
    """Who sent a request; ``key_id`` is ``None`` for the administrator's token."""

    user: str
    scope: Scope
    key_id: str | None


_ADMINISTRATOR = Caller(ADMIN, Scope.ADMIN, None)


def admin_token(settings: Settings) -> str:
    """``SECATEUR_TOKEN``, or else the one kept in the data folder, made there on first use."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    path = settings.data_dir / "token"
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(TOKEN_BYTES))
    return path.read_text().strip()


def scope_of(method: str) -> Scope:
    """What a call takes that is not the administrator's."""
    return Scope.READ if method.upper() in ("GET", "HEAD") else Scope.SUBMIT


async def require_access(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Dependency of every protected route: reading takes the scope ``read``, everything else ``submit``.

    Raises:
        Unauthorized: no key, or none of this server's.
        Forbidden: its scope does not reach, or a browser's session without the proof that a page of ours asks.
        TooManyRequests: its user, or whoever sends wrong keys from this address, calls too fast.
    """
    state = request.app.state
    session = session_of(request, state.token) if credentials is None else None
    if credentials is not None:
        caller = await identified(request, credentials.credentials)
    elif session is not None:
        caller = await _resumed(request, session)
    else:
        raise Unauthorized("Authorization is missing; send the header 'Authorization: Bearer TOKEN'.")
    request.scope["caller"] = caller
    structlog.contextvars.bind_contextvars(user=caller.user)
    if caller.scope is not Scope.ADMIN:
        state.limits.check_user(caller.user)
    _require(caller, scope_of(request.method))
    return caller


async def identified(request: Request, text: str) -> Caller:
    """Whose key or token that is; raises ``Unauthorized``, and ``TooManyRequests`` to whoever sends many wrong ones."""
    state = request.app.state
    if same(text, state.token):
        return _ADMINISTRATOR
    caller = await _known(KeyRepository.of_text, text, state.context.database)
    if caller is None:
        state.limits.check_refused(request.client.host if request.client else "unknown")
        raise Unauthorized("The token is not this server's; use an API key, SECATEUR_TOKEN or what 'secateur serve' saved.")
    return caller


async def _resumed(request: Request, session: Session) -> Caller:
    state = request.app.state
    if session.key_id is None:
        caller: Caller | None = _ADMINISTRATOR
    else:
        caller = await _known(KeyRepository.of_id, session.key_id, state.context.database)
    if caller is None:
        raise Unauthorized("The key that this browser signed in with was revoked; sign in with another one.")
    if scope_of(request.method) is not Scope.READ and not same(await csrf_sent(request), csrf_token(state.token, session.text)):
        raise Forbidden(f"A browser's session changes nothing without {CSRF_HEADER}; reload the page and try again.")
    return caller


async def require_access_or_loopback(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Dependency of a route that shows nothing of any user: from this machine it takes no key; raises as ``require_access``."""
    if request.client is None or not is_loopback(request.client.host):
        await require_access(request, credentials)


async def require_admin(caller: Annotated[Caller, Depends(require_access)]) -> None:
    """Dependency of the administrator's routes; raises as ``require_access`` does."""
    _require(caller, Scope.ADMIN)


def _require(caller: Caller, needed: Scope) -> None:
    if not caller.scope.includes(needed):
        raise Forbidden(f"This takes a key of scope {needed}, and yours has {caller.scope}; ask the administrator for one.")


async def _known(find: Callable[[KeyRepository, str], UsedKey | None], by: str, database: Database) -> Caller | None:
    keys = KeyRepository(database)
    key = await database.aside(partial(find, keys, by))
    if key is None:
        return None
    if key.unnoted:
        await run_in_threadpool(keys.note_use, key.id)  # waits for its turn to write, and so not where others read
    return Caller(key.user, Scope(key.scope), key.id)


def _write_once(path: Path, text: str) -> None:
    """Creates the file whole and readable by its owner alone; of two writers at once the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
