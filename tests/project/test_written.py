import os

import pytest

from chansup.check.check import check
from chansup.project import discover, write

pytestmark = pytest.mark.slow  # the interpreter makes no difference


@pytest.mark.parametrize("has_websockets", [False, True])
def test_what_is_written_passes_the_check(tmp_path, has_websockets):
    lines = ["async def app(scope, receive, send):", "    await send({'type': 'websocket.accept'})"]
    (tmp_path / "main.py").write_text("\n".join(lines if has_websockets else [lines[0] + " ..."]))
    project = discover(tmp_path)
    assert project.has_websockets is has_websockets
    path = tmp_path / "chansup.toml"
    write(project, path)
    path.write_text(path.read_text() + '[admin]\nbind = ""\n')
    report = check(path, {"PATH": os.environ["PATH"], "PORT": "0"})
    assert (report.problems, report.warnings) == ([], [])
