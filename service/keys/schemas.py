"""API keys as they are asked for and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.database.tables import NAME_LENGTH, ApiKey
from service.scopes import Scope
from service.uploads import printable
from service.users.schemas import UserName

EXAMPLE_KEY: dict[str, Any] = {
    "id": "key-18c1b5a0c3d2e1f0a1b2c3d4",
    "user": "alice",
    "scope": "submit",
    "name": "alice's notebook",
    "created_at": "2026-01-31T12:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}


class KeyRequest(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user": "alice", "scope": "submit", "name": "alice's notebook"}]}
    )

    user: UserName = Field(description="Whose; who is not known yet is made a user.")
    scope: Scope = Field(Scope.SUBMIT, description="What it is for; each scope includes those before it.")
    name: Annotated[str, AfterValidator(printable)] | None = Field(
        None, max_length=NAME_LENGTH, description="For people; unset: the user's."
    )


class KeyView(BaseModel):
    """A key, without its text."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_KEY]})

    id: str
    user: str
    scope: Scope
    name: str
    created_at: datetime
    last_used_at: datetime | None = Field(description="To the minute; null: never.")
    revoked_at: datetime | None = Field(description="null: it is valid.")

    @classmethod
    def of(cls, row: ApiKey, **more: str) -> Self:
        """From its row."""
        return cls.model_validate({name: getattr(row, name) for name in KeyView.model_fields} | more)


class NewKeyView(KeyView):
    """A key that was just made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE_KEY, "key": "key-18c1b5a0c3d2e1f0a1b2c3d4.n0tAR3alSecret"}]}
    )

    key: str = Field(description="What to send as `Authorization: Bearer KEY`. It is shown this once and kept nowhere.")
