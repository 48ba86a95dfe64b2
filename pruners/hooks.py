"""Hooks that watch one network and stay behind when it is copied or pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Watching:
    """A hook for modules and tensors; a copy of the network, or a file of it, holds one that does nothing instead.

    A function inside a function cannot be pickled, and a copy that shared it would tell the original's watcher about passes of
    its own.

    Args:
        look: called with what the hook gets, in the original alone; what it returns is dropped.
    """

    def __init__(self, look: Callable[..., object]) -> None:
        self._look = look

    def __call__(self, *seen: Any) -> None:
        self._look(*seen)

    def __reduce__(self) -> tuple[Any, ...]:
        return Watching, (nothing,)


def nothing(*_: Any) -> None:
    """What a copied hook does."""
