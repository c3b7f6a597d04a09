from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layer import hubs
from tests.worker import project
from tests.worker.project import Project


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    with hubs.running() as hub:
        yield hub


@pytest.fixture
def site(tmp_path: Path, hub: hubs.Hub) -> Project:
    """The project, on the layer of a hub."""
    return project.on_hub(tmp_path, hub)
