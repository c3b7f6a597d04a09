from pathlib import Path

import pytest

from tests.running import write_app

DIRECT = """
[app]
asgi = "site_app:app"

[interface]
bind = "127.0.0.1:0"
processes = 2

[rollout]
settle = 0.05
drain_spread = 0.2
keep_alive = 0.3
stop_timeout = 10
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with a small application in it."""
    write_app(tmp_path)
    return tmp_path
