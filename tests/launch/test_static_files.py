"""granian serves static files beside the app, as docs/servers.md says."""

from pathlib import Path

import pytest

from . import client
from .harness import APPS, Supervisor


def test_granian_serves_files_before_the_app_is_asked(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    pytest.importorskip("granian")
    (tmp_path / "hello.txt").write_text("hello\n")
    options = {"static_path_route": ["/static"], "static_path_mount": [str(tmp_path)]}
    process = supervisor.start("granian", directory=APPS, options=options).wait_ready()
    answer = client.get(process.address, "/static/hello.txt")
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert client.get(process.address, "/static/missing.txt").status == 404
