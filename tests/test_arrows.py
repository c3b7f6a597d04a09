"""Arrows point one way: cli → supervisor → config; children import config and protocol at most."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "chansup"

# What every room may use. Each imports the standard library, and others of these, alone.
SHARED = {
    "backoff",
    "background",
    "clock",
    "errors",
    "log_lines",
    "private_parts",
    "text",
    "tracebacks",
    "unix",
    "waiters",
    "waiting",
    "wire",
}
MAY_IMPORT = {
    **dict.fromkeys(sorted(SHARED), SHARED),
    "protocol": {"protocol"} | SHARED,
    "config": {"config", "protocol", "vendored"} | SHARED,
    "supervisor": {"supervisor", "config", "protocol"} | SHARED,
    "handover": {"handover", "protocol"} | SHARED,
    "carry": {"carry", "handover", "config", "protocol"} | SHARED,
    "launch": {"launch", "relay", "handover", "carry", "worker", "config", "protocol"} | SHARED,
    "worker": {"worker", "layer", "config", "protocol"} | SHARED,
    "relay": {"relay", "handover", "config", "protocol"} | SHARED,
    "layer": {"layer", "config", "protocol"} | SHARED,
    "bench": {"bench", "protocol"} | SHARED,
    "project": {"project", "config"} | SHARED,
    "check": {"check", "supervisor", "config", "protocol"} | SHARED,
    "cli": {"cli", "check", "bench", "project", "supervisor", "config", "protocol"} | SHARED,
    "vendored": set(),
}
RUN_BY_PATH = {"prelude.py", "guard_process.py"}  # with -I -S: the standard library alone
OF_CHILDREN = {
    "django",
    "uvicorn",
    "channels",
    "asgiref",
    "granian",
    "hypercorn",
    "daphne",
    "gunicorn",
    "uvloop",
}


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rooms(names: set[str]) -> set[str]:
    return {
        name.split(".")[1]
        for name in names
        if name.startswith("chansup.") and name != "chansup.__version__"
    }


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_each_room_imports_what_it_may(room: str) -> None:
    path = PACKAGE / room
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files
    for file in files:
        assert rooms(imports(file)) <= MAY_IMPORT[room], file


def test_what_runs_without_site_packages_imports_only_the_standard_library() -> None:
    for name in RUN_BY_PATH:
        tops = {imported.split(".")[0] for imported in imports(PACKAGE / "launch" / name)}
        assert tops <= sys.stdlib_module_names, name


def test_the_supervisor_imports_nothing_that_runs_in_children() -> None:
    script = "import sys, chansup.supervisor.run; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    tops = {module.split(".")[0] for module in loaded.stdout.split()}
    assert "chansup" in tops
    assert not tops & OF_CHILDREN
    children = {
        f"chansup.{room}"
        for room in ("launch", "relay", "carry", "handover", "layer", "worker", "bench")
    }
    assert not children & set(loaded.stdout.split())


def test_the_supervisor_never_imports_the_application(tmp_path: Path) -> None:
    from tests.running import running, write_app
    from tests.system.conftest import DIRECT

    write_app(
        tmp_path,
        before=f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')\n".replace(
            "open", "import os\nopen", 1
        ),
    )
    with running(tmp_path, DIRECT) as run:
        run.wait_until_ready()
        assert run.command("check").returncode == 0
        assert run.command("reload").returncode == 0
        pids = {int(line) for line in (tmp_path / "pids").read_text().split()}
        assert run.pid not in pids
        assert len(pids) >= 4
