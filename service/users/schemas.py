"""Users as they are changed and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.database.tables import USER_LENGTH, User
from service.users.quotas import Usage

UserName = Annotated[str, StringConstraints(pattern=rf"^[a-z0-9][a-z0-9-]{{0,{USER_LENGTH - 1}}}$")]
Jobs = Annotated[int | None, Field(ge=0, le=2**31 - 1, description="Jobs that have not ended, at most; null: no limit.")]
Trials = Annotated[int | None, Field(ge=0, le=2**63 - 1, description="Trials that those jobs plan, at most; null: no limit.")]
Bytes = Annotated[
    int | None,
    Field(ge=0, le=2**63 - 1, description="Of models, data sets with their arrays, and checkpoints, at most; null: no limit."),
]


class QuotaChange(BaseModel):
    """New quotas of a user; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,  # true is no number
        json_schema_extra={"examples": [{"max_jobs": 4, "max_bytes": None}]},
    )

    max_jobs: Jobs = None
    max_trials: Trials = None
    max_bytes: Bytes = None


class UsageView(BaseModel):
    """What a user has at the moment."""

    jobs: int = Field(description="That have not ended.")
    trials: int = Field(description="That those jobs plan.")
    bytes: int = Field(description="Of models, data sets with the arrays that they were turned into, and checkpoints.")


class UserView(BaseModel):
    """A user, what they may have and what they have."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "alice",
                    "max_jobs": 10,
                    "max_trials": 10000,
                    "max_bytes": 53687091200,
                    "usage": {"jobs": 1, "trials": 200, "bytes": 1583744},
                    "created_at": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    name: str
    max_jobs: Jobs
    max_trials: Trials
    max_bytes: Bytes
    usage: UsageView
    created_at: datetime

    @classmethod
    def of(cls, row: User, used: Usage) -> Self:
        """From its row."""
        own = {name: getattr(row, name) for name in ("name", "max_jobs", "max_trials", "max_bytes", "created_at")}
        return cls(**own, usage=UsageView(jobs=used.jobs, trials=used.trials, bytes=used.bytes))


class MeView(UserView):
    """The user who calls, and what their key is for."""

    scope: str = Field(examples=["submit"])
    key_id: str | None = Field(description="null: the administrator's token.")
