"""What a key is for."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """What a key may do; each scope includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether a key of this scope may do what takes the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)
