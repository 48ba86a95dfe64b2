"""An event as it is posted, in the manner of Standard Webhooks (https://www.standardwebhooks.com).

The receiver computes the HMAC-SHA256 of ``ID.TIMESTAMP.BODY`` with the key that both know, and compares it with the signature
behind ``v1,``. The id is the same however often an event is sent, the timestamp is that of this try.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.database.tables import Event, Job
from service.webhooks.schemas import key_of


@dataclass(frozen=True)
class Message:
    """What is to be posted.

    Attributes:
        event_id: the event's.
        job_id: its job's.
        owner: whose job that is.
        url: where to.
        secret: to sign with, as the user gave it; ``None``: not at all.
        body: JSON, the same at every try.
        tries: of which this is the last one.
    """

    event_id: int
    job_id: str
    owner: str
    url: str
    secret: str | None
    body: bytes
    tries: int

    @property
    def id(self) -> str:
        """By which a receiver knows what it had before."""
        return f"{self.job_id}-{self.event_id}"

    def headers(self, seconds: int) -> Mapping[str, str]:
        """Of a try at that Unix time."""
        found = {
            "content-type": "application/json",
            "user-agent": "Secateur",
            "webhook-id": self.id,
            "webhook-timestamp": str(seconds),
        }
        if self.secret is not None:
            found["webhook-signature"] = signature(self.secret, self.id, seconds, self.body)
        return found


def compose(job: Job, event: Event, tries: int) -> Message:
    """An event of a job that has a webhook."""
    webhook: dict[str, Any] = job.webhook or {}
    document = {
        "type": f"job.{event.type}",
        "timestamp": event.created_at.isoformat(),
        "data": {"job": job.id, "name": job.name, "event": event.id, **event.data},
    }
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Message(event.id, job.id, job.owner, webhook["url"], webhook["secret"], body, tries)


def signature(secret: str, message_id: str, seconds: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    digest = hmac.digest(key_of(secret), f"{message_id}.{seconds}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
