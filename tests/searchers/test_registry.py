from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pruners.errors import InvalidInput
from pruners.registry import Registry
from searchers import SEARCHERS
from searchers.base import Searcher

ROOT = Path(__file__).parents[2]


def test_every_file_that_registers_a_searcher_is_found():
    assert {"netadapt", "uniform"} <= set(SEARCHERS)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(InvalidInput, match=r"^searcher\.name 'annealing' is unknown; use one of .*netadapt.*uniform"):
        SEARCHERS["annealing"]


def test_a_name_is_given_once():
    registry: Registry[Searcher] = Registry("searcher", "searchers")
    registry.register("taken")(SEARCHERS["uniform"])
    with pytest.raises(ValueError, match="'taken' is already registered"):
        registry.register("taken")(SEARCHERS["netadapt"])


@pytest.mark.parametrize("name", list(SEARCHERS))
def test_a_searcher_documents_itself(name):
    searcher = SEARCHERS[name]
    assert searcher.reference.endswith(".")
    assert searcher.__doc__
    assert searcher.__doc__ != Searcher.__doc__
    properties = searcher.Params.model_json_schema().get("properties", {})
    assert all(parameter.get("description") for parameter in properties.values())


def test_listing_the_searchers_needs_neither_ray_nor_torch():
    script = "import sys, searchers; list(searchers.SEARCHERS); sys.exit(bool({'ray', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
