"""API keys in the database. A key is its id, a dot, and 256 random bits; the row has their sha256 alone."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.database import Database, now
from service.database.tables import ApiKey, is_id, new_id, utc_now
from service.pages import newest_first
from service.problems import NotFound
from service.users.repository import Quotas, ensure_user

SECRET_BYTES = 32
USE_SECONDS = 60.0  # the last use is written this often at most: not every read is to be a write

_KEYS = ApiKey.__table__.c
# Every call asks this, of the bare table: to make an object of the row would take twice as long as to find it.
_USED = select(_KEYS.id, _KEYS.user, _KEYS.scope, _KEYS.sha256, _KEYS.last_used_at, _KEYS.revoked_at).where(
    _KEYS.id == bindparam("key_id")
)


class UsedKey(NamedTuple):
    """Whose key a call came with, how far it reaches, and whether the call is to be noted as its last use."""

    id: str
    user: str
    scope: str
    unnoted: bool


class KeyRepository:
    """The keys' rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, user: str, scope: str, name: str, quotas: Quotas) -> tuple[ApiKey, str]:
        """A new key and its text, which is nowhere to be had again; a user who is not there yet is made with these quotas."""
        key_id = new_id("key")
        text = f"{key_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
        key = ApiKey(id=key_id, user=user, scope=scope, name=name, sha256=_sha256(text))
        with self._database.write() as session:
            ensure_user(session, user, quotas)
            session.add(key)
        return key, text

    def get(self, key_id: str) -> ApiKey:
        """The row of that id; raises ``NotFound``."""
        with self._database.read() as session:
            return _found(session, key_id)

    def page(self, limit: int, after: str | None) -> tuple[Sequence[ApiKey], str | None]:
        """Newest first, revoked ones among them."""
        with self._database.read() as session:
            return newest_first(session, select(ApiKey), ApiKey.id, limit, after)

    def revoke(self, key_id: str) -> ApiKey:
        """Makes a key useless, once and for good; raises ``NotFound``."""
        with self._database.write() as session:
            key = _found(session, key_id)
            key.revoked_at = key.revoked_at or now(session)
            return key

    def of_text(self, text: str) -> UsedKey | None:
        """The key of that text; ``None`` if it is none or was revoked."""
        return self._used(text.partition(".")[0], lambda sha256: hmac.compare_digest(sha256, _sha256(text)))

    def of_id(self, key_id: str) -> UsedKey | None:
        """The key of that id, of which the caller has other proof; ``None`` as above."""
        return self._used(key_id, lambda _: True)

    def note_use(self, key_id: str) -> None:
        """Writes that it was used now."""
        with self._database.write() as session:
            session.get_one(ApiKey, key_id).last_used_at = now(session)

    def _used(self, key_id: str, proven: Callable[[str], bool]) -> UsedKey | None:
        if not is_id(key_id):
            return None
        with self._database.read() as session:
            row = session.connection().execute(_USED, {"key_id": key_id}).one_or_none()
        if row is None:
            return None
        key_id, user, scope, sha256, last_used_at, revoked_at = row
        if not proven(sha256) or revoked_at is not None:
            return None
        unnoted = last_used_at is None or utc_now() - last_used_at > timedelta(seconds=USE_SECONDS)
        return UsedKey(key_id, user, scope, unnoted)


def _found(session: Session, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id) if is_id(key_id) else None
    if key is None:
        raise NotFound("key", key_id)
    return key


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
