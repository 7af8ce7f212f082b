"""Options of the kill test, and what the tests of faults share."""

import random
import sys
from collections.abc import Iterator

import pytest

from tests.faults.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    if sys.platform != "linux":
        pytest.skip("forks a process that has PyTorch loaded, which other systems mind")
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random moments; the seed stands in the header."""
    return random.Random(f"{request.config.getoption('kill_seed')} {request.node.name}")
