"""Empty WebSocket messages reach the client, whatever the server makes of them."""

from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.running import running

CONFIG = """
[app]
asgi = "empties_app:app"
directory = "{apps}"

[interface]
bind = "127.0.0.1:0"
server = "{server}"
"""


@pytest.mark.parametrize("server", ["uvicorn", "daphne", "granian", "hypercorn"])
def test_empty_messages(server: str, tmp_path: Path) -> None:
    config = CONFIG.format(apps=Path(__file__).parent / "apps", server=server)
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        with connect(f"ws://{run.address}/", proxy=None) as client:
            assert [client.recv(timeout=10) for _ in range(3)] == ["", b"", "x"]
