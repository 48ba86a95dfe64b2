"""Data sets in the database."""

from __future__ import annotations

from service.database import Database
from service.database.tables import Dataset
from service.uploads import UploadRepository


def datasets(database: Database) -> UploadRepository[Dataset]:
    """The data sets' rows."""
    return UploadRepository(database, Dataset, "dataset")
