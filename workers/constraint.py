"""``constraint.max_metric_drop``: whether it can be confirmed at all, and the bound that confirms it.

Dense and pruned network answer the same inputs, so what counts is the difference for each of them. Where the metric is a share
of inputs (``top1``), the dense network is right and the pruned one wrong for ``lost`` of n, the other way round for ``gained``,
and the drop is (lost − gained)/n. Its upper bound is that of Clopper and Pearson (Biometrika 26, 1934), exact, where nothing
was gained, and otherwise Tango's score bound (Statistics in Medicine 17, 1998), which takes into account how often the two
differ. Where the metric is a mean of figures (``mse``) it is Student's.

Several networks may be held to the same test inputs: in an order that was fixed before, the least pruned first, and up to the
first that fails, so that the chance that a wrong one passes stays what it is for one (Angelopoulos et al., Learn then Test,
arXiv 2110.01052, section 2.3). Imports neither torch nor ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from workers.spec import JobSpec, Task
from workers.tasks import METRICS

CONFIDENCE = 0.95
"""Of the bound: a network that drops by more than is allowed is confirmed in one job of twenty at the most."""

_FEWEST_FIGURES = 30  # from which on a mean of figures is near enough to normal for Student's bound
_PRECISION = 1e-9  # of a score bound


def drop_bound(drops: NDArray[np.float64], inputs: int | None = None) -> float:
    """What a metric dropped by at most, with ``CONFIDENCE``.

    Args:
        drops: by input ``[n]``, how much worse the pruned network did than the dense one.
        inputs: of which the bound is wanted, were they like these; ``None``: these.
    """
    count = inputs or len(drops)
    if not np.isin(drops, (-1.0, 0.0, 1.0)).all():
        from scipy.special import stdtrit  # takes a while to import

        error = float(drops.std(ddof=1)) / math.sqrt(count)
        return float(drops.mean()) + float(stdtrit(count - 1, CONFIDENCE)) * error
    lost, gained = (count * float((drops == sign).mean()) for sign in (1.0, -1.0))
    return _exact(lost, count) if not gained else _score(lost, gained, count)


def inputs_needed(max_drop: float, task: Task) -> int:
    """Test inputs without which no network could be confirmed, however good: at the least."""
    if not METRICS[str(task.metric)].share:
        return _FEWEST_FIGURES
    return 1 if max_drop >= 1 else math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-max_drop))


def check_constraint(spec: JobSpec, task: Task, data: Mapping[str, Any], schedule: bool) -> None:
    """Refuses what could never be confirmed, and what no search for the smallest network goes with.

    Args:
        spec: the job's.
        task: with its metric.
        data: what ``workers.formats.convert.convert`` found.
        schedule: whether the pruner is one.

    Raises:
        InvalidInput: the first thing that does not fit.
    """
    if spec.constraint is None:
        return
    most, name = spec.constraint.max_metric_drop, str(task.metric)
    if not METRICS[name].by_input:
        usable = ", ".join(metric for metric, about in METRICS.items() if about.by_input)
        problem = f"is no mean over inputs, so that no bound on its drop can be confirmed; use one of {usable}"
        raise InvalidInput("task.metric", name, problem)
    inputs, needed = data["splits"]["test"], inputs_needed(most, task)
    if inputs < needed:
        least = math.ceil(1000 * -math.expm1(math.log(1 - CONFIDENCE) / inputs)) / 1000
        problem = (
            f"cannot be confirmed on {inputs} test inputs, by any network: to be {CONFIDENCE:.0%} certain takes {needed}"
            f"; add some" + (f", or allow {least:g}" if METRICS[name].share and least < 1 else "")
        )
        raise InvalidInput("constraint.max_metric_drop", most, problem)
    if spec.minimises:
        _check_search(spec, schedule)


def _check_search(spec: JobSpec, schedule: bool) -> None:
    if SEARCHERS[spec.searcher.name].trains_rounds:
        usable = ", ".join(name for name in SEARCHERS if not SEARCHERS[name].trains_rounds)
        problem = f"trains towards one size, and cannot look for the smallest that keeps a constraint; use one of {usable}"
        raise InvalidInput("searcher.name", spec.searcher.name, f"{problem}, or state a budget beside the constraint")
    if schedule:
        problem = "trains towards one size, and cannot look for the smallest that keeps a constraint; use a criterion"
        raise InvalidInput("pruner.name", spec.pruner.name, f"{problem}, or state a budget beside the constraint")
    trained = "each size is trained for final_epochs and judged before the next is tried; leave it out"
    if spec.recovery.finalists:
        raise InvalidInput("recovery.finalists", spec.recovery.finalists, f"is not for a constraint alone: {trained}")
    for field in ("average", "patience"):
        if value := getattr(spec.recovery.recipe, field):
            raise InvalidInput(f"recovery.recipe.{field}", value, f"is not for a constraint alone: {trained}")


def _exact(lost: float, inputs: int) -> float:
    from scipy.special import betaincinv

    return 1.0 if lost >= inputs else float(betaincinv(lost + 1, inputs - lost, CONFIDENCE))


def _score(lost: float, gained: float, inputs: int) -> float:
    """The drop at which the score statistic is as low as chance makes it in one case of twenty; by bisection."""
    quantile = NormalDist().inv_cdf(CONFIDENCE)

    def statistic(drop: float) -> float:
        linear = (2 * inputs - lost + gained) * drop - lost - gained
        root = math.sqrt(linear**2 + 8 * inputs * gained * drop * (1 - drop))
        share = (root - linear) / (4 * inputs)  # of inputs gained, the likeliest if that is the drop
        return (lost - gained - inputs * drop) / math.sqrt(inputs * (2 * share + drop * (1 - drop)))

    low, high = (lost - gained) / inputs, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) > -quantile else (low, middle)
    return high
