"""What the tests of the docs share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    directory = tmp_path / "mysite"
    directory.mkdir()
    one = Scene(directory)
    try:
        yield one
    finally:
        one.end()
