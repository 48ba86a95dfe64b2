"""What Schemathesis cannot know: of a made-up job that is sound so far, the model and the data are made to be there."""

from __future__ import annotations

import os
from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Ids and names that exist, in place of strings at random; whatever else is wrong with the job stays."""
    if context.operation.label != "POST /jobs" or not isinstance(body, dict):
        return body
    ids = {"model": os.environ["FUZZ_MODEL"], "dataset": os.environ["FUZZ_DATASET"]}
    if not all(isinstance(body.get(name), str) for name in ids):
        return body
    named = {name: {**body[name], "name": choice} for name, choice in NAMED.items() if _is_named(body.get(name))}
    return {**body, **ids, **named}


NAMED = {"searcher": "random", "pruner": "l1"}


def _is_named(choice: Any) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("name"), str)
