"""Config files on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chansup.config.errors import ConfigError, Problem
from chansup.config.load import Loaded, load


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Loaded]:
    """Write a config file and load it."""

    def write_and_load(text: str, **environ: str) -> Loaded:
        path = tmp_path / "chansup.toml"
        path.write_text(text)
        return load(path, {"PATH": "/usr/bin:/bin", **environ})

    return write_and_load


@pytest.fixture
def problems(config: Callable[..., Loaded]) -> Callable[..., list[Problem]]:
    """Write a config file that is wrong, and return why."""

    def load_and_fail(text: str, **environ: str) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            config(text, **environ)
        return caught.value.problems

    return load_and_fail
