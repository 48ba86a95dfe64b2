"""A data set as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from service.database.tables import Dataset


class DatasetView(BaseModel):
    """A data set and what its inspection found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "dataset-18c1b5a0c3d2e1f0a1b2c3d4",
                    "name": "digits",
                    "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                    "size": 465536,
                    "splits": {"train": 1437, "test": 360, "val": 0},
                    "shape": [1, 8, 8],
                    "dtype": "float32",
                    "classes": 10,
                    "labels": [0, 9],
                    "created_at": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    sha256: str
    size: int = Field(description="Bytes of the file.")
    splits: dict[str, int] = Field(description="Images per split; a val of 0 is split off the training images.")
    shape: list[int] = Field(description="Of one image.")
    dtype: str
    classes: int = Field(description="Distinct labels.")
    labels: list[int] = Field(description="The smallest and the largest label.")
    created_at: datetime

    @classmethod
    def of(cls, row: Dataset) -> Self:
        """From its row."""
        own = {name: getattr(row, name) for name in ("id", "name", "sha256", "size", "created_at")}
        return cls.model_validate({**row.inspection, **own})
