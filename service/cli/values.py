"""Values that are typed in a form of their own."""

from __future__ import annotations

import json
import math
from typing import Any

from pruners.errors import InvalidInput


def parse_limit(option: str, text: str) -> int | None:
    """A number, or ``none`` for no limit; raises ``InvalidInput``."""
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput(option, text, "is no limit; give a whole number, or none")
    return int(text)


def parse_budget(text: str, bounded: bool) -> dict[str, Any]:
    """``macs=0.5`` is a share of the dense network, ``params=120000`` and ``latency_ms=0.8ms`` are maxima.

    Where something else bounds the cut (``bounded``), ``params`` alone says what is to be little.

    Raises:
        InvalidInput: none of these.
    """
    metric, _, value = text.partition("=")
    if bounded and text.isidentifier():
        return {"metric": metric}
    absolute = metric == "latency_ms" and value.endswith("ms")  # one that may be below 1
    try:
        number = float(value.removesuffix("ms") if absolute else value)
    except ValueError:
        number = math.nan
    if not metric or not number > 0 or math.isinf(number):
        raise InvalidInput("--budget", text, "is not METRIC=VALUE with a positive number; write macs=0.5 or params=120000")
    if absolute:
        return {"metric": metric, "max": number}
    if number < 1:
        return {"metric": metric, "ratio": number}
    if number == 1:
        raise InvalidInput("--budget", text, "leaves the network as it is; give a share below 1 or a maximum above 1")
    if metric == "latency_ms":
        raise InvalidInput("--budget", text, f"needs its unit as a maximum; write latency_ms={value}ms, or a share below 1")
    return {"metric": metric, "max": int(number)}


def parse_params(items: list[str], option: str = "--param") -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that is JSON (a number, true, a list) is taken as such, else as text."""
    params = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise InvalidInput(option, item, f"is not NAME=VALUE; write for instance {option} steps=10")
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    return params
