"""`chansup docs`, in the checkout and in what a wheel installs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import command

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "README",
    "CHANGELOG",
    "configuration",
    "chansup.toml.example",
    "chansup.service",
    "site.conf",
    "tutorial",
    "alerts.yml",
    "check.json",
    "event.json",
    "log-line.json",
    "status.json",
}


def names(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines()}


def test_pages_of_the_checkout() -> None:
    assert names(command("docs").stdout) >= EXPECTED | {p.stem for p in ROOT.glob("docs/*.md")}
    assert command("docs", "reload").stdout == (ROOT / "docs/reload.md").read_text()
    assert "status.json " in command("docs").stdout
    assert command("docs", "status.json").stdout == (ROOT / "docs/schemas/status.json").read_text()
    done = command("docs", "relod")
    assert done.returncode == 1
    assert 'page "relod" does not exist' in done.stderr


@pytest.mark.slow
@pytest.mark.thorough
def test_pages_of_a_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = tmp_path / "source"  # building leaves files behind
    left = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, ignore=left)
    wheel = [*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(wheel, check=True, capture_output=True)
    (built,) = tmp_path.glob("chansup-*.whl")
    prefix = tmp_path / "prefix"
    # Without the last option pip would take this environment's own chansup away.
    options = ["--no-deps", "--prefix", str(prefix), "--ignore-installed"]
    install = [*pip, "install", *options, str(built)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = prefix.glob("lib*/python*/site-packages")
    script = "from chansup.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "docs"], capture_output=True, text=True, cwd="/",
        env={**os.environ, "PYTHONPATH": str(packages)},
    )  # fmt: skip
    assert done.stderr == ""
    assert names(done.stdout) >= EXPECTED
