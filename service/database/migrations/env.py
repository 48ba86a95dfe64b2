"""Alembic's entry: runs the migrations on the connection that ``service.database.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from service.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table; batch mode copies it
)
context.run_migrations()
