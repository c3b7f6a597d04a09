"""Fixtures for launchers: real processes, real sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[harness.Supervisor]:
    with harness.supervisor(tmp_path) as played:
        yield played
