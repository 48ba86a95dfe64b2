"""Search: which widths to try next, given how the last ones scored. No Ray here (``tune.py`` aside) and no network."""

from pruners.registry import Registry
from searchers.base import Searcher

SEARCHERS: Registry[Searcher] = Registry("searcher", "searchers", skip=("searchers.tune",))
