"""How fast one may call: a bucket of tokens for each user and for each address that sends wrong keys."""

from __future__ import annotations

import time
from collections.abc import Callable

from service.problems import TooManyRequests

BURST_SECONDS = 10.0  # of calls at once, as a page that opens or a client that lists everything makes them
REFUSED_PER_SECOND, REFUSED_AT_ONCE = 10.0, 500.0  # keys are not to be guessed anyway: this keeps log and database quiet

_MOST_BUCKETS = 10_000  # then those that are full again are dropped; each takes about 200 bytes


class Buckets:
    """Token buckets by name, each full at first: a call takes one token, and so many are added each second."""

    def __init__(self, per_second: float, most: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._most = most
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> None:
        """Takes a token; raises ``TooManyRequests`` if there is none."""
        moment = self._clock()
        if len(self._levels) >= _MOST_BUCKETS:
            self._levels = {name: found for name, found in self._levels.items() if self._level(*found, moment) < self._most}
        level = self._level(*self._levels.get(name, (self._most, moment)), moment)
        if level < 1:
            raise TooManyRequests((1 - level) / self._per_second)
        self._levels[name] = level - 1, moment

    def _level(self, level: float, then: float, moment: float) -> float:
        return min(self._most, level + (moment - then) * self._per_second)


class RateLimits:
    """The limits of one API process.

    Args:
        per_second: calls of one user, on the average.
        clock: seconds, for tests to turn.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = Buckets(per_second, max(1.0, per_second * BURST_SECONDS), clock)
        self._refused = Buckets(REFUSED_PER_SECOND, REFUSED_AT_ONCE, clock)

    def check_user(self, user: str) -> None:
        """Counts a call; raises ``TooManyRequests``."""
        self._users.take(user)

    def check_refused(self, address: str) -> None:
        """Counts a call with a wrong key; raises ``TooManyRequests``. Right keys from the same address are not concerned."""
        self._refused.take(address)
