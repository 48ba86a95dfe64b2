"""What pydantic found wrong, as one sentence that names the field, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from pruners.errors import InvalidInput

_ALIKE, _MUCH_ALIKE = 0.7, 0.8  # of difflib's ratio: gpu and gpus have 0.86, bugdet and budget 0.83, momentum and augment 0.67


def refusal(errors: Sequence[Mapping[str, Any]], prefix: str = "", known: Sequence[str] = ()) -> InvalidInput:
    """The first of pydantic's errors, by the name that its sender typed.

    Args:
        errors: what ``ValidationError.errors()`` returns.
        prefix: where in the sender's document the checked part lies, such as ``searcher.params``.
        known: paths of fields (see ``paths``): the one that a misspelt or misplaced name seems to be meant for is named.
    """
    error = errors[0]
    place = [part for part in map(str, error["loc"]) if " " not in part]  # which the tags of a union have, and no field
    field = ".".join([prefix] * bool(prefix) + place) or "body"
    kind, message = error["type"], str(error["msg"])
    if kind == "missing":
        return InvalidInput(field, None, "is missing; add it")
    if kind == "extra_forbidden":
        meant = _meant(place, known)
        remedy = f"{' and '.join(meant)} {'are' if meant[1:] else 'is'}" if meant else "check its spelling or leave it out"
        return InvalidInput(field, error["input"], f"is not a known field; {remedy}")
    problem = message.removeprefix("Value error, ")
    if problem.startswith("Input should "):
        problem = problem.removeprefix("Input ")
    else:
        problem = f"is not usable: {problem[:1].lower()}{problem[1:]}"
    return InvalidInput(field, error["input"], problem)


def paths(model: type[BaseModel]) -> list[str]:
    """Every field of a document and of the parts in it, such as ``seed`` and ``limits.max_trials``, outer ones first."""
    schema = model.model_json_schema()
    found: list[str] = []
    level: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    while level:
        inner = [(f"{place}.{name}".lstrip("."), part) for place, node in level for name, part in _fields(node, schema)]
        found += [place for place, _ in inner]
        level = inner
    return list(dict.fromkeys(found))


def _fields(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """A part's own fields, through references, alternatives and lists."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    yield from node.get("properties", {}).items()
    for other in [*node.get("anyOf", []), *node.get("oneOf", []), *([node["items"]] if "items" in node else [])]:
        yield from _fields(other, schema)


def _meant(place: Sequence[str], known: Sequence[str]) -> list[str]:
    """Fields of the same name that stand elsewhere, else those whose name is much like it, first where it stands."""
    *outer, name = [part for part in place if not part.isdecimal()]  # which an item of a list has, and no field
    beside = [path for path in known if path.split(".")[:-1] == outer]
    return _named(name, known, 1.0) or _named(name, beside, _ALIKE) or _named(name, known, _MUCH_ALIKE)


def _named(name: str, known: Sequence[str], alike: float) -> list[str]:
    closest = get_close_matches(name, dict.fromkeys(path.rpartition(".")[2] for path in known), n=1, cutoff=alike)
    return [path for path in known if path.rpartition(".")[2] in closest]
