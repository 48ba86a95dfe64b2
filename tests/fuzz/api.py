"""Calls made up from the OpenAPI document, against a running server: ``make api-fuzz``, and a few of them in ``make test``.

Schemathesis sends what the document allows and what it does not, alone and in the order of links between calls, and holds every
answer against the document. Uploads are taken as they come (what a network may hold is fuzzed elsewhere), and there is no Ray.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

from tests.service.doubles import TOKEN
from tests.service.test_events import serving

CONFIG = Path(__file__).with_name("schemathesis.toml")


def fuzz(client: httpx2.Client, seed: int, examples: int, phases: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Schemathesis against the client's server; its report is what it printed."""
    base_url = str(client.base_url).rstrip("/")
    known = {
        "FUZZ_MODEL": client.post("/models", content=b"model").json()["id"],
        "FUZZ_DATASET": client.post("/datasets", content=b"data").json()["id"],
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", f"{base_url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"),
        *("--phases", phases, "--max-examples", str(examples), "--seed", str(seed)),
        *("--continue-on-failure", "--no-color", "--suppress-health-check", "all"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **known})


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=320, help="For each operation and phase, at most.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secateur-fuzz-") as name:
        folder = Path(name)
        with serving(folder / "data", f"sqlite:///{folder / 'secateur.db'}") as (_, client):
            done = fuzz(client, parsed.seed, parsed.examples, parsed.phases, folder)
    print(done.stdout, done.stderr)  # noqa: T201
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
