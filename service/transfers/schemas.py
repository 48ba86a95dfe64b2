"""An upload in parts as it is announced and shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.database.tables import NAME_LENGTH
from service.transfers.files import Transfer
from service.uploads import printable

_EXAMPLE: dict[str, Any] = {
    "kind": "dataset",
    "size": 3221225472,
    "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "name": "imagenette",
}


class TransferRequest(BaseModel):
    """What is going to be uploaded."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    kind: Literal["model", "dataset"] = Field(description="What it becomes.")
    size: int = Field(ge=1, lt=2**63, description="Bytes of the whole.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the whole, in hexadecimal; what arrives is held to it.")
    name: Annotated[str, AfterValidator(printable)] | None = Field(None, max_length=NAME_LENGTH, description="For people.")


class TransferView(TransferRequest):
    """An upload in parts and how much of it is there."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": f"upload-{32 * '0'}", **_EXAMPLE, "offset": 67108864}]})

    id: str
    offset: int = Field(description="Bytes that are there; the next part begins here.")

    @classmethod
    def of(cls, transfer: Transfer, offset: int) -> Self:
        """From what is kept of it."""
        return cls(
            id=transfer.id, kind=transfer.kind, size=transfer.size, sha256=transfer.sha256, name=transfer.name, offset=offset
        )
