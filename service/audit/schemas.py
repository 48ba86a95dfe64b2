"""An audit entry as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from service.database.tables import AuditEntry


class AuditView(BaseModel):
    """A call that was to change something."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 17,
                    "at": "2026-01-31T12:00:00Z",
                    "user": "alice",
                    "key_id": "key-18c1b5a0c3d2e1f0a1b2c3d4",
                    "address": "192.0.2.7",
                    "method": "POST",
                    "path": "/jobs",
                    "status": 202,
                    "made": "/jobs/job-18c1b5a0c3d2e1f0a1b2c3d4",
                    "request_id": "8f14e45fceea167a",
                }
            ]
        }
    )

    id: int
    at: datetime
    user: str
    key_id: str | None = Field(description="null: the administrator's token, or a webhook of the user's.")
    address: str | None = Field(description="Where the call came from; of a webhook, where it went.")
    method: str
    path: str = Field(description="Of a webhook, its whole URL.")
    status: int = Field(description="What it was answered.")
    made: str | None = Field(description="The path of what it made.")
    request_id: str = Field(description="Also in the answer and in the server's log.")

    @classmethod
    def of(cls, row: AuditEntry) -> Self:
        """From its row."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})
