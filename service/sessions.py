"""What a browser is signed in by: a cookie that names the key it signed in with, and that only this service can make.

The cookie is the key's id, the time of its end and a random part, under an HMAC whose secret is drawn from the administrator's
token. So nothing is kept of it here, every process of the service knows it, and a stolen copy of the page or of the cookie
never holds the key. It is worth as much as the key for as long as it lasts: a key that is revoked, or another token, ends it.

Browsers send cookies by themselves, whoever's page asks. So what changes something takes a second proof, which only a page of
ours knows: ``csrf_token``.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass

from fastapi import Request

COOKIE = "secateur_session"
SESSION_SECONDS = 12 * 3600  # a day of work
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"

_FORM = "application/x-www-form-urlencoded"
_FORM_BYTES = 2**16  # ours have a few fields; what is larger is no form of ours


@dataclass(frozen=True)
class Session:
    """A cookie of ours that has not run out; ``key_id`` is ``None`` for the administrator's token."""

    key_id: str | None
    text: str


def new_session(secret: str, key_id: str | None) -> str:
    """The text of a cookie."""
    return _signed(secret, f"{key_id or ''}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}")


def session_of(request: Request, secret: str) -> Session | None:
    """The session that a request came with; ``None``: no cookie, or none that this service made, or it has run out."""
    text = request.cookies.get(COOKIE, "")
    parts = text.split(".")
    if len(parts) != 4 or not hmac.compare_digest(text.encode(), _signed(secret, ".".join(parts[:3])).encode()):
        return None
    return Session(parts[0] or None, text) if int(parts[1]) > time.time() else None


def csrf_token(secret: str, text: str) -> str:
    """What a page sends back beside a cookie of that text."""
    return _mac(secret, "csrf", text)


async def csrf_sent(request: Request) -> str:
    """What came as proof: the header, or the field of a small form; empty: nothing."""
    header = request.headers.get(CSRF_HEADER)
    if header is not None:
        return header
    length = request.headers.get("content-length", "")
    if request.headers.get("content-type", "").partition(";")[0] != _FORM or not length.isdigit() or int(length) > _FORM_BYTES:
        return ""
    field = (await request.form()).get(CSRF_FIELD, "")
    return field if isinstance(field, str) else ""


def same(left: str, right: str) -> bool:
    """Whether two proofs are one, in a time that does not tell where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())


def _signed(secret: str, text: str) -> str:
    return f"{text}.{_mac(secret, 'session', text)}"


def _mac(secret: str, purpose: str, text: str) -> str:
    return hmac.new(secret.encode(), f"secateur {purpose} {text}".encode(), "sha256").hexdigest()
