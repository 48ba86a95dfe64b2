"""What tests of workers share: the digits with a network that knows them, and a real Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.digits import digits


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The network's ``.pt2`` file and the data set."""
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Of two cores."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
