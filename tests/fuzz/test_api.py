"""A few hundred made-up calls: no fault, every answer as the OpenAPI document has it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fuzz.api import fuzz
from tests.service.test_events import serving


def test_no_call_is_answered_otherwise_than_documented(tmp_path: Path) -> None:
    with serving(tmp_path / "data", f"sqlite:///{tmp_path / 'secateur.db'}") as (_, client):
        done = fuzz(client, seed=0, examples=2, phases="fuzzing,stateful", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert made, done.stdout
    assert int(made[1]) == int(made[2]) >= 60
