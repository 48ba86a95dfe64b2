"""API keys in the database. A key is its id, a dot, and 256 random bits; the row has their sha256 alone."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database import Database, now
from service.database.tables import ApiKey, is_id, new_id
from service.pages import newest_first
from service.problems import NotFound
from service.users.repository import Quotas, ensure_user

SECRET_BYTES = 32
USE_SECONDS = 60.0  # the last use is written this often at most: not every read is to be a write


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

    def used(self, text: str) -> ApiKey | None:
        """The key of that text, its use being noted; ``None`` if it is none or was revoked."""
        return self._noted(text.partition(".")[0], lambda key: hmac.compare_digest(key.sha256, _sha256(text)))

    def used_by_id(self, key_id: str) -> ApiKey | None:
        """The key of that id, of which the caller has other proof; as ``used``."""
        return self._noted(key_id, lambda _: True)

    def _noted(self, key_id: str, proven: Callable[[ApiKey], bool]) -> ApiKey | None:
        with self._database.read() as session:
            key = session.get(ApiKey, key_id) if is_id(key_id) else None
            moment = now(session)
        if key is None or not proven(key) or key.revoked_at is not None:
            return None
        if key.last_used_at is None or moment - key.last_used_at > timedelta(seconds=USE_SECONDS):
            with self._database.write() as session:
                session.get_one(ApiKey, key_id).last_used_at = moment
        return key


def _found(session: Session, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id) if is_id(key_id) else None
    if key is None:
        raise NotFound("key", key_id)
    return key


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
