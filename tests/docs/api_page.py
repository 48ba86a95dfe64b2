"""The generated part of docs/api.md: every call and every shape of the OpenAPI document.

    python -m tests.docs.api_page     # writes it; ``make docs`` does so first

``tests/docs/test_docs.py`` fails where the page says something else than the service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
MARK = "<!-- What follows is written by python -m tests.docs.api_page from the OpenAPI document. -->\n"

Json = Mapping[str, Any]

COMMON = {
    "401": "Not authorised",
    "403": "Not allowed",
    "422": "Invalid input",
    "429": "Too many requests",
    "500": "Internal error",
    "503": "Temporarily unavailable",
}
"""Refusals that the page explains once, for all calls."""

_LOOSE = ("HTTPValidationError", "ValidationError")  # FastAPI's own, which no call of ours answers


def generated() -> str:
    """The part behind ``MARK``."""
    document = create_app(Settings.load(token="none")).openapi()
    return "\n".join([*_calls(document), *_shapes(document)]).rstrip() + "\n"


def main() -> None:
    """Writes the page."""
    written, mark, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(written + mark + generated())


def _calls(document: Json) -> Iterator[str]:
    by_tag: dict[str, list[tuple[str, str, Json]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    for tag, calls in by_tag.items():
        yield f"## Calls: {tag}\n"
        for method, path, operation in calls:
            yield f"### `{method} {path}`\n"
            yield operation["description"].strip() + "\n"
            scope = operation.get("x-scope")
            free = {} in operation.get("security", [])
            yield f"Takes a key of scope `{scope}`{', but none from this machine' * free}.\n" if scope else "Takes no key.\n"
            yield from _parameters(operation.get("parameters", []))
            yield from _body(operation.get("requestBody"))
            yield from _answers(operation["responses"])


def _parameters(parameters: list[Json]) -> Iterator[str]:
    if not parameters:
        return
    yield from ("| parameter | in | type | |", "|---|---|---|---|")
    for parameter in parameters:
        schema = parameter["schema"]
        text = parameter.get("description") or schema.get("description", "")
        default = f" Default: {_code(schema['default'])}." if schema.get("default") is not None else ""
        required = "" if parameter.get("required") else ", optional"
        yield f"| `{parameter['name']}` | {parameter['in']}{required} | {_type(schema)} | {_cell(text + default)} |"
    yield ""


def _body(body: Json | None) -> Iterator[str]:
    if body is not None:
        kinds = [f"`{kind}`: {_type(content['schema'])}" for kind, content in body["content"].items()]
        yield f"Body: {'; or '.join(kinds)}.\n"


def _answers(answers: Json) -> Iterator[str]:
    good, refusals = [], []
    for status, answer in sorted(answers.items()):
        kinds, said = answer.get("content", {}), answer["description"].removeprefix("Successful Response").rstrip(".")
        if "application/problem+json" in kinds:
            if COMMON.get(status) != said:
                refusals.append(f"{status} ({said[:1].lower()}{said[1:]})")
            continue
        shapes = [_type(content["schema"]) for content in kinds.values() if content.get("schema")]
        told = " or ".join([*shapes, *([said[:1].lower() + said[1:]] if said else [])])
        good.append(f"{status} {told}".strip() if told else f"{status} without a body")
    yield f"Answers {'; '.join(good)}.\n"
    if refusals:
        yield f"May be refused with {', '.join(refusals)}.\n"


def _shapes(document: Json) -> Iterator[str]:
    yield "## Shapes\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        if name in _LOOSE:
            continue
        yield f"### {_title(name)}\n"
        yield (schema.get("description") or "").strip() + "\n"
        if "enum" in schema:
            yield "One of " + ", ".join(_code(value) for value in schema["enum"]) + ".\n"
        fields = schema.get("properties", {})
        if fields:
            yield from ("| field | type | |", "|---|---|---|")
            for field, found in fields.items():
                needed = " Required." if field in schema.get("required", []) and "examples" in schema else ""
                default = f" Default: {_code(found['default'])}." if found.get("default") is not None else ""
                yield f"| `{field}` | {_type(found)} | {_cell(found.get('description', '') + needed + default)} |"
            yield ""
        for example in schema.get("examples", [])[:1]:
            yield f"```json\n{json.dumps(example, indent=1, ensure_ascii=False)}\n```\n"


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = _title(schema["$ref"].rpartition("/")[2])
        return f"[{name}](#{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')})"
    if "anyOf" in schema or "oneOf" in schema:
        parts = [_type(part) for part in schema.get("anyOf", schema.get("oneOf"))]
        return " or ".join(dict.fromkeys(parts))
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "enum" in schema:
        return ", ".join(_code(value) for value in schema["enum"])
    if "const" in schema:
        return _code(schema["const"])
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_type(inner)}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    kind = schema.get("type", "anything")
    bounds = [("exclusiveMinimum", "> "), ("minimum", "≥ "), ("exclusiveMaximum", "< "), ("maximum", "≤ ")]
    limits = [f"{sign}{schema[name]:g}" for name, sign in bounds if name in schema and abs(schema[name]) < 2**31 - 1]
    return " ".join([schema.get("format", kind) if kind == "string" else kind, *limits])


def _title(name: str) -> str:
    """Of a shape: ``Page_JobView_`` is a page of ``JobView``."""
    inner = re.fullmatch(r"Page_(\w+)_", name)
    return f"Page of {inner[1]}" if inner else name


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    """On one line, bars escaped, as a table wants it."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
