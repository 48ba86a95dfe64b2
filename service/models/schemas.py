"""A model as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from service.database.tables import Model


class Output(BaseModel):
    """A tensor that the model returns."""

    shape: list[int | None] = Field(description="null is a free size, the batch above all.", examples=[[None, 10]])


class Input(BaseModel):
    """A tensor that the model takes."""

    shape: list[int | None] = Field(description="null is a free size, the batch above all.", examples=[[None, 3, 32, 32]])
    dtype: str = Field(examples=["float32"])


class GroupView(BaseModel):
    """Channels that can only be pruned together: one variable of the search."""

    name: str = Field(examples=["layer1.0.conv1"])
    width: int = Field(description="Channels in the dense network.")
    divisor: int = Field(description="Channels go in multiples of this.")
    minimum: int = Field(description="Channels to keep at least.")
    layers: list[str] = Field(description="Layers that produce these channels.")
    types: list[str] = Field(description="Their types, in the same order.")
    residual: bool = Field(description="Whether it is a residual stream.")
    frozen_reason: str | None = Field(description="Why it cannot be pruned; null: it can.")
    unscored_by: list[str] = Field(description="Pruners that see nothing of it, so that no job of theirs can select it.")


class ModelView(BaseModel):
    """A model and what its inspection found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "model-18c1b5a0c3d2e1f0a1b2c3d4",
                    "owner": "alice",
                    "name": "resnet20",
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "size": 1118208,
                    "macs": 40813184,
                    "params": 272474,
                    "inputs": [{"shape": [None, 3, 32, 32], "dtype": "float32"}],
                    "outputs": [{"shape": [None, 10]}],
                    "groups": [
                        {
                            "name": "layer1.0.conv1",
                            "width": 16,
                            "divisor": 1,
                            "minimum": 1,
                            "layers": ["layer1.0.conv1"],
                            "types": ["Conv2d"],
                            "residual": False,
                            "frozen_reason": None,
                            "unscored_by": [],
                        }
                    ],
                    "created_at": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    id: str
    owner: str = Field(description="The user whose it is.")
    name: str
    sha256: str
    size: int = Field(description="Bytes of the file.")
    macs: int = Field(description="Multiply-accumulates for one input.")
    params: int
    inputs: list[Input]
    outputs: list[Output]
    groups: list[GroupView]
    created_at: datetime

    @classmethod
    def of(cls, row: Model) -> Self:
        """From its row."""
        own = {name: getattr(row, name) for name in ("id", "owner", "name", "sha256", "size", "created_at")}
        return cls.model_validate({**row.inspection, **own})
