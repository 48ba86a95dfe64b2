"""Named algorithms: a file registers its class, everything else finds it by name.

A registry is filled by importing every module of one package, so a new algorithm is one new file and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pruners.errors import InvalidInput

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes of one kind by the name a user types.

    Args:
        kind: the word used in error messages and as the field's name, ``"pruner"`` or ``"searcher"``.
        package: the package whose modules register themselves; imported on first use.
        skip: modules of that package that hold no algorithm and are dear to import.
    """

    def __init__(self, kind: str, package: str, skip: tuple[str, ...] = ()) -> None:
        self._kind = kind
        self._package = package
        self._skip = skip
        self._entries: dict[str, type[T]] = {}
        self._filled = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that files a class under ``name``; a name that is taken raises ``ValueError``."""

        def add(entry: type[T]) -> type[T]:
            if name in self._entries:
                raise ValueError(f"{self._kind} {name!r} is already registered by {self._entries[name].__module__}")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name; raises ``InvalidInput`` that lists the names there are."""
        self._fill()
        if name not in self._entries:
            raise InvalidInput(f"{self._kind}.name", name, f"is unknown; use one of {', '.join(self)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """The names, sorted."""
        self._fill()
        return iter(sorted(self._entries))

    def _fill(self) -> None:
        if self._filled:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__, f"{self._package}."):
            if module.name not in self._skip:
                importlib.import_module(module.name)
        self._filled = True
