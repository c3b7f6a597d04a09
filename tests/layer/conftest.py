from collections.abc import Iterator

import pytest

from tests.layer import hubs


@pytest.fixture(scope="session")
def shared_hub() -> Iterator[hubs.Hub]:
    with hubs.running() as hub:
        yield hub


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    """A hub that the test may do anything with."""
    with hubs.running() as hub:
        yield hub
