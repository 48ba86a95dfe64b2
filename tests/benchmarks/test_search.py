"""The search benchmark's own arithmetic: rank correlation, and which table cell a result lands in."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.search import CORRELATION, correlations, spearman, tables


def result(searcher: str, ratio: float, seed: int, accuracy: float) -> dict[str, object]:
    return {
        "network": "resnet20",
        "searcher": searcher,
        "ratio": ratio,
        "seed": seed,
        "trials": 100,
        "seconds": 10.0,
        "thinking": 1.0,
        "accuracy": accuracy,
        "dense_accuracy": 0.9,
    }


def test_the_rank_correlation_knows_order_alone_and_ties_share_a_rank() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2, 2], [1, 2, 3, 4]) == pytest.approx(spearman([1, 1, 2, 2], [2, 1, 4, 3]))


def test_the_table_has_mean_and_range_over_seeds_and_the_best_search_first() -> None:
    results = [result("uniform", 0.5, 0, 0.5), result("auto", 0.5, 0, 0.7), result("auto", 0.5, 1, 0.8)]
    console = Console(file=io.StringIO(), width=160)
    console.print(*tables(results))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "75.0 (70.0 … 80.0)" in text
    assert text.index("auto") < text.index("uniform")


def test_a_correlation_is_a_line_and_no_searcher_of_the_table() -> None:
    tuned = {**result(CORRELATION, 0.5, 0, 0.0), "scores": [-3.0, -2.0, -1.0], "accuracy": [0.1, 0.3, 0.2]}
    tuned["tuned_accuracy"] = [0.5, 0.6, 0.7]
    results = [tuned, result("uniform", 0.5, 0, 0.5)]
    [line] = correlations(results)
    assert "1.00 of the search score, 0.50 of accuracy before" in line
    console = Console(file=io.StringIO(), width=160)
    console.print(*tables(results))
    assert CORRELATION not in console.file.getvalue()  # type: ignore[attr-defined]
