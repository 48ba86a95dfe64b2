"""``config_list``: which layers a pruner masks, and how far. Read once, before any work is spent.

An entry selects layers by ``op_types`` (class names; ``"default"`` is every type that the pruner takes), by ``op_names``, or by
both, and then says either ``exclude: True`` or the pruner's numbers, ``sparsity`` for most. Later entries win.

    [
        {"sparsity": 0.5, "op_types": ["Conv2d"]},
        {"sparsity": 0.8, "op_names": ["layer3.0.conv1", "layer3.0.conv2"]},
        {"exclude": True, "op_names": ["conv1"]},
    ]
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import nn

from pruners.errors import InvalidInput

ConfigList = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Number:
    """A number that an entry takes.

    Attributes:
        low: the least value.
        below: an upper bound that is not reached.
        whole: whether it counts something.
        default: what an entry without it means; ``None`` if it must be there.
    """

    low: float = 0.0
    below: float = math.inf
    whole: bool = False
    default: float | None = None

    @property
    def wanted(self) -> str:
        """The range in words."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} of {self.low:g} or more" + (f" and less than {self.below:g}" if self.below < math.inf else "")

    def admits(self, value: object) -> bool:
        """Whether ``value`` is such a number."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        return self.low <= float(value) < self.below and (not self.whole or float(value).is_integer())


SPARSITY: Mapping[str, Number] = {"sparsity": Number(below=1.0)}
"""What most pruners take: the share of a layer's channels or weights that goes; 1 would leave nothing."""

_SELECTION = ("op_types", "op_names", "exclude")


@dataclass(frozen=True)
class LayerConfig:
    """What was asked of one layer.

    Attributes:
        entry: the place in ``config_list`` of the entry that decides.
        values: its numbers, such as ``{"sparsity": 0.5}``, defaults filled in.
    """

    entry: int
    values: Mapping[str, float]


def parse_config(
    model: nn.Module,
    config_list: ConfigList,
    pruner: str,
    supported: tuple[type[nn.Module], ...],
    numbers: Mapping[str, Number] = SPARSITY,
) -> dict[str, LayerConfig]:
    """The layers to prune, by name, in the model's order.

    Args:
        model: the network.
        config_list: see above.
        pruner: the name that errors use.
        supported: the layer types that it takes.
        numbers: the keys that its entries take besides those that select.

    Raises:
        InvalidInput: names the entry, the key and the remedy.
    """
    if not isinstance(config_list, list | tuple) or not config_list:
        raise InvalidInput("config_list", config_list, "must be a list of one entry at least, each a dict")
    reader = _Reader(model, pruner, supported, numbers)
    found: dict[str, LayerConfig] = {}
    for place, entry in enumerate(config_list):
        names, values = reader.read(f"config_list[{place}]", entry)
        for name in names:
            if values is None:
                found.pop(name, None)
            else:
                found[name] = LayerConfig(place, values)
    if not found:
        raise InvalidInput("config_list", None, "excludes every layer that it selects; leave one at least")
    for name in found:
        if "weight" not in model.get_submodule(name)._parameters:
            problem = "has a weight that is computed from others; remove its parametrization first, or exclude it"
            raise InvalidInput("config_list", name, problem)
    return {name: found[name] for name in reader.layers if name in found}


class _Reader:
    def __init__(
        self, model: nn.Module, pruner: str, supported: tuple[type[nn.Module], ...], numbers: Mapping[str, Number]
    ) -> None:
        self._pruner = pruner
        self._numbers = numbers
        self._types = [kind.__name__ for kind in supported]
        modules = dict(model.named_modules())
        self._kinds = {name: type(module).__name__ for name, module in modules.items() if name}
        first = {id(module): name for name, module in modules.items()}
        # A module that the model holds twice may be called by either name.
        self._names = {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False) if name}
        self.layers = [
            name for name, module in modules.items() if name and isinstance(module, supported) and module.weight is not None
        ]

    def read(self, field: str, entry: object) -> tuple[list[str], dict[str, float] | None]:
        """The layers that an entry selects, and its numbers; ``None`` if it excludes."""
        if not isinstance(entry, Mapping):
            raise InvalidInput(field, entry, 'must be a dict such as {"sparsity": 0.5, "op_types": ["Conv2d"]}')
        known = [*self._numbers, *_SELECTION]
        for key in entry:
            if key not in known:
                raise InvalidInput(f"{field}.{key}", None, f"is no key of {self._pruner}; {_instead(str(key), known)}")
        return self._selected(field, entry), self._values(field, entry)

    def _values(self, field: str, entry: Mapping[str, Any]) -> dict[str, float] | None:
        exclude = entry.get("exclude", False)
        if not isinstance(exclude, bool):
            raise InvalidInput(f"{field}.exclude", exclude, "must be True or False")
        if exclude:
            for key in self._numbers:
                if key in entry:
                    raise InvalidInput(f"{field}.{key}", entry[key], "contradicts exclude: True; leave one of them out")
            return None
        values: dict[str, float] = {}
        for key, number in self._numbers.items():
            if key not in entry and number.default is None:
                raise InvalidInput(f"{field}.{key}", None, f"is missing; give {number.wanted}, or exclude: True")
            value = entry.get(key, number.default)
            if not number.admits(value):
                raise InvalidInput(f"{field}.{key}", value, f"must be {number.wanted}")
            values[key] = int(value) if number.whole else float(value)
        return values

    def _selected(self, field: str, entry: Mapping[str, Any]) -> list[str]:
        if "op_types" not in entry and "op_names" not in entry:
            raise InvalidInput(field, None, 'selects no layer; give op_types (["default"] for all of them) or op_names')
        names = self._named(field, entry["op_names"]) if "op_names" in entry else self.layers
        if "op_types" not in entry:
            return names
        types = self._typed(field, entry["op_types"])
        selected = [name for name in names if self._kinds[name] in types]
        if "op_names" in entry:
            for name in names:
                if name not in selected:
                    problem = f"is a {self._kinds[name]}, which the entry's op_types leave out; drop one of the two"
                    raise InvalidInput(f"{field}.op_names", name, problem)
        if not selected:
            there = ", ".join(dict.fromkeys(self._kinds[name] for name in self.layers)) or "none"
            problem = f"selects no layer; of the types that {self._pruner} takes the model has {there}"
            raise InvalidInput(f"{field}.op_types", entry["op_types"], problem)
        return selected

    def _named(self, field: str, given: object) -> list[str]:
        field = f"{field}.op_names"
        names: list[str] = []
        for name in _words(field, given):
            if name not in self._names:
                raise InvalidInput(field, name, f"is no layer of the model; {_instead(name, list(self._names))}")
            first = self._names[name]
            if first not in self.layers:
                kind = self._kinds.get(first, "network")
                problem = f"is a {kind}, which {self._pruner} does not prune; name layers of type {', '.join(self._types)}"
                raise InvalidInput(field, name, problem)
            if first in names:
                raise InvalidInput(field, name, "stands there twice; leave one of them out")
            names.append(first)
        return names

    def _typed(self, field: str, given: object) -> set[str]:
        """Class names. Those of the user's own subclasses count where the model has a layer of them."""
        field = f"{field}.op_types"
        own = {self._kinds[name] for name in self.layers}
        types: set[str] = set()
        for name in _words(field, given):
            if name == "default":
                types.update(self._types)
            elif name in self._types or name in own:
                types.add(name)
            else:
                known = ["default", *dict.fromkeys([*self._types, *sorted(own)])]
                what = f"is not pruned by {self._pruner}" if hasattr(nn, name) else "is no layer type"
                raise InvalidInput(field, name, f"{what}; {_instead(name, known)}")
        return types


def _words(field: str, given: object) -> list[str]:
    words = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise InvalidInput(field, given, "must be a list of one name at least")
    return words


_LISTED = 20  # names that an error lists: a screen's worth


def _instead(word: str, known: Sequence[str]) -> str:
    """What to write in place of ``word``: the closest, or what there is."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"the closest is {close[0]!r}"
    more = ", …" if len(known) > _LISTED else ""
    return f"use one of {', '.join(known[:_LISTED])}{more}"
