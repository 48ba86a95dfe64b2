"""Where a job tells its events, as it is sent and shown."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import httpx2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.database.tables import Job

SECRET_PREFIX = "whsec_"  # noqa: S105 - what Standard Webhooks begins its secrets with
_SECRET_BYTES = range(24, 65)  # what Standard Webhooks asks for
_LONGEST_URL = 2000  # characters, as servers and proxies take them
_LARGEST_PORT = 2**16 - 1

EventType = Literal["state", "trial", "progress"]


def usable(url: str) -> str:
    """The address, if it is one of http or https, without a password or a fragment; raises ``ValueError``."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:  # ValueError: what its parser lets through of odd ports and names
        raise ValueError("this is no URL; write one like https://example.org/hooks/secateur") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("write an address of http or https, like https://example.org/hooks/secateur")
    if parsed.userinfo:
        raise ValueError("leave out what stands before the @; the secret says who sent it")
    if parsed.fragment:
        raise ValueError("leave out the part behind #, which is never sent")
    if parsed.port is not None and not 0 < parsed.port <= _LARGEST_PORT:
        raise ValueError(f"use a port between 1 and {_LARGEST_PORT}")
    return url


def key_of(secret: str) -> bytes:
    """The key that a secret stands for; raises ``ValueError``."""
    try:
        if not secret.startswith(SECRET_PREFIX):
            raise binascii.Error
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:  # of which binascii.Error is one; a letter beyond ASCII is another
        key = b""
    if len(key) not in _SECRET_BYTES:
        raise ValueError(
            f'write "{SECRET_PREFIX}" and {_SECRET_BYTES.start} to {_SECRET_BYTES.stop - 1} random bytes in base64: '
            f'echo "{SECRET_PREFIX}$(openssl rand -base64 32)" makes one'
        )
    return key


def _checked_secret(secret: str) -> str:
    key_of(secret)
    return secret


class Webhook(BaseModel):
    """Where a job's events are posted as they happen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(usable)] = Field(
        max_length=_LONGEST_URL,
        description="Of http or https, at an address that the operator lets this server call; redirects are not followed.",
        examples=["https://example.org/hooks/secateur"],
    )
    secret: Annotated[str, AfterValidator(_checked_secret)] | None = Field(
        None,
        repr=False,
        description="`whsec_` and 24 to 64 bytes in base64, by which each delivery is signed (Standard Webhooks). It is never "
        "shown again. null: deliveries are not signed, so that anybody may send such.",
    )
    events: tuple[EventType, ...] = Field(
        ("state",), min_length=1, max_length=3, description="Which kinds of the job's events to tell."
    )


class WebhookView(BaseModel):
    """A job's webhook, without its secret."""

    url: str
    signed: bool
    events: list[EventType]

    @classmethod
    def of(cls, job: Job) -> WebhookView | None:
        """Of a job that has one."""
        kept = job.webhook
        if kept is None:
            return None
        return cls(url=kept["url"], signed=kept["secret"] is not None, events=kept["events"])
