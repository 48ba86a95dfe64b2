"""A data set as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from service.database.tables import Dataset


class TargetView(BaseModel):
    """What a label is."""

    shape: list[int] = Field(description="[]: a single number.")
    dtype: str = Field(description="int64 or float32.")


class DatasetView(BaseModel):
    """A data set and what its inspection found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "dataset-18c1b5a0c3d2e1f0a1b2c3d4",
                    "owner": "alice",
                    "name": "digits",
                    "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                    "size": 465536,
                    "format": "npz",
                    "splits": {"train": 1437, "test": 360, "val": 0},
                    "split_by": "the arrays' names",
                    "shape": [1, 8, 8],
                    "dtype": "float32",
                    "targets": {"shape": [], "dtype": "int64"},
                    "classes": 10,
                    "labels": [0, 9],
                    "class_names": None,
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
    format: str | None = Field(
        None, description="npz, parquet or tar; null, as what follows: inspected by an earlier version, upload it again."
    )
    splits: dict[str, int] = Field(description="Inputs per split; a val of 0 is split off the training inputs.")
    split_by: str | None = Field(None, description="What decided which input is in which split.")
    shape: list[int] = Field(description="Of one input.")
    dtype: str
    targets: TargetView | None = Field(None, description="One label; null: there are none.")
    classes: int | None = Field(description="Distinct labels of the training inputs; null: they are no class numbers.")
    labels: list[int] | None = Field(description="The smallest and the largest label; null likewise.")
    class_names: list[str] | None = Field(None, description="What labels 0, 1, … stand for; null: the file does not say it.")
    created_at: datetime

    @classmethod
    def of(cls, row: Dataset) -> Self:
        """From its row."""
        own = {name: getattr(row, name) for name in ("id", "owner", "name", "sha256", "size", "created_at")}
        return cls.model_validate({**row.inspection, **own})
