"""Whether the dense network knows the search inputs from its own training, where it loses less by a cut than elsewhere.

What such inputs tell of plans is less than what others tell, above all where little is lost: docs/searchers.md has figures.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_CERTAIN = 0.999  # of jobs whose search inputs are as new as the test inputs, this share is not told so


def familiar(search: float, searched: int, test: float, tested: int) -> str | None:
    """What to tell somebody whose search inputs the dense network answers better than test inputs, beyond chance.

    Args:
        search: share of right answers on the search split, 0…1.
        searched: its inputs.
        test: share of right answers on the test split.
        tested: its inputs.
    """
    right = (search * searched + test * tested) / (searched + tested)
    error = math.sqrt(right * (1 - right) * (1 / searched + 1 / tested))
    if search - test <= NormalDist().inv_cdf(_CERTAIN) * error:
        return None
    return (
        f"The dense network is right on {search:.1%} of the search inputs and {test:.1%} of the test inputs: it was probably "
        "trained on the former. A search tells plans apart better on inputs that the network never saw; give some as x_val."
    )
