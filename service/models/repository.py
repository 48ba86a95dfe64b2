"""Models in the database."""

from __future__ import annotations

from service.database import Database
from service.database.tables import Model
from service.uploads import UploadRepository


def models(database: Database) -> UploadRepository[Model]:
    """The models' rows."""
    return UploadRepository(database, Model, "model")
