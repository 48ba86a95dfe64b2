"""Coverage-guided fuzzing of the program reader: ``python -m tests.fuzz.fuzz_program -len_control=0 -max_total_time=600``.

Damages a good program as ``tests/pruners/test_fuzz.py`` does, steered by atheris (https://github.com/google/atheris) to
ways through the reader that were not taken before. Stops at the first error that is not one made for users.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Runs until stopped; arguments are libFuzzer's."""
    try:
        import atheris
    except ImportError:
        sys.exit("Fuzzing needs atheris: pip install atheris")

    with atheris.instrument_imports(include=["pruners.graph"]):
        from tests.pruners import test_fuzz

    from hypothesis import given, settings
    from hypothesis import strategies as st

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = test_fuzz.sample_in(folder)

        @settings(database=None, deadline=None)
        @given(st.one_of([damage(sample) for damage in test_fuzz.DAMAGES.values()]))
        def once(data: bytes) -> None:
            test_fuzz.attempt(data, folder)

        atheris.Setup(sys.argv, once.hypothesis.fuzz_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
