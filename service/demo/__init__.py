"""``secateur demo``: the whole way on one machine, from a network just trained to a smaller one that opens with torch alone."""

from __future__ import annotations


def run() -> None:
    """Runs the demo.

    Raises:
        JobFailed: what came out is not what was promised; says what.
    """
    from service.demo.tour import tour  # imports torch, which `secateur --help` must not wait for

    tour()
