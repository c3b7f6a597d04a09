"""Every config in the docs loads; every server runs with the options that are shown for it."""

import ssl
from pathlib import Path

import httpx
import pytest
import tomli

from chansup.config.load import load
from tests.certificates import certify
from tests.docs.pages import Block, all_blocks
from tests.docs.scene import SITE, Scene
from tests.running import write_app

APP = '[app]\nasgi = "site_app:app"\n'
REFERENCE = {"configuration.md"}  # explains keys one by one: all of its configs are parts
CONFIGS = all_blocks("toml")
WITH_OPTIONS = [block for block in CONFIGS if "part, options" in block.notes]


def whole(block: Block) -> str:
    """Return a config for a block that shows a part of one, as its note says."""
    if block.page.name not in REFERENCE and not any(n.startswith("part") for n in block.notes):
        return block.text
    present = tomli.loads(block.text)
    text = block.text
    if not {"asgi", "wsgi"} & set(present.get("app", {})):
        text = text.replace("[app]\n", APP) if "app" in present else f"{APP}\n{text}"
    if "interface" not in present:
        text += '\n[interface]\nbind = "127.0.0.1:8000"\n'
    if "redis" in present.get("interface", {}).get("after", []):
        assert "redis" in present["programs"]
    return text


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The directory of a site, with all that configs in the docs name."""
    for name in ("current", "shared", "run"):
        (tmp_path / name).mkdir()
    for directory in (tmp_path, tmp_path / "current"):
        write_app(directory)
        certify(directory)
        (directory / "manage.py").touch()
    (tmp_path / "shared/env").touch()
    python = tmp_path / "current/venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch(0o755)
    return tmp_path


@pytest.mark.parametrize("block", CONFIGS, ids=str)
def test_a_config_loads(block: Block, site: Path) -> None:
    text = whole(block).replace(SITE, str(site)).replace("/etc/mysite/env", f"{site}/shared/env")
    config = site / "chansup.toml"
    config.write_text(text)
    warnings = [warning.key for warning in load(config, {}).warnings]
    # The one for Kubernetes is open to the cluster, and the page says so.
    assert set(warnings) <= {"admin.bind"}, warnings


def test_each_server_is_shown_with_options() -> None:
    shown = {tomli.loads(block.text)["interface"]["server"] for block in WITH_OPTIONS}
    assert shown == {"uvicorn", "granian", "hypercorn", "daphne", "gunicorn"}


@pytest.mark.parametrize(
    "block", WITH_OPTIONS, ids=lambda block: tomli.loads(block.text)["interface"]["server"]
)
def test_a_server_runs_with_its_options(block: Block, scene: Scene) -> None:
    config = tomli.loads(block.text)
    pytest.importorskip(config["interface"]["server"])
    write_app(scene.directory)
    certify(scene.directory)
    text = f"{APP}\n{block.text}".replace("[interface]", '[interface]\nbind = "127.0.0.1:8000"', 1)
    scene.write("chansup.toml", text)
    scene.run("chansup check", "…can be used.")
    assert scene.exit_code == 0
    scene.start()
    trusted = ssl.create_default_context(cafile=scene.directory / "cert.pem")
    answer = httpx.get(f"https://127.0.0.1:{scene.port}/", verify=trusted)
    assert answer.text.startswith("1 ")
