"""Alembic's migrations: one file each under ``versions``, applied in the order of their ``down_revision``."""
