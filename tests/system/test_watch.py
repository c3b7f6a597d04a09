"""`chansup run --watch`: a saved file is served a moment later, and nothing stays behind."""

from pathlib import Path

import pytest

from tests import fetch
from tests.running import running, write_app
from tests.system.conftest import DIRECT

pytest.importorskip("watchfiles")


def test_a_saved_file_is_served(tmp_path: Path) -> None:
    write_app(tmp_path)
    with running(tmp_path, DIRECT, arguments=("--watch",)) as run:
        run.wait_until_ready()
        run.wait_for_output("watch | watching")
        assert fetch.get(run.url).text.startswith("1 ")
        write_app(tmp_path, "2")
        run.wait_for_output("rollout 2: succeeded")
        assert fetch.get(run.url).text.startswith("2 ")
        assert "site_app.py changed: reloading" in run.output()
        (tmp_path / "notes.txt").write_text("of no interest")
        (tmp_path / "site_app.py").write_text("broken = ")
        run.wait_for_output("SyntaxError")
        assert fetch.get(run.url).text.startswith("2 ")
        assert "notes.txt" not in run.output()
        run.wait_for(lambda: (run.status()["rollout"] or {}).get("outcome") == "failed")
