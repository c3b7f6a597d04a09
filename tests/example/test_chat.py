"""The example by itself: its own tests, its migrations, its config file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chansup.config.load import load

from .site import EXAMPLE, LOCAL, REDIS, copy_example, environment

pytestmark = pytest.mark.slow  # the interpreter makes no difference


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return copy_example(tmp_path / "chat")


def manage(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_its_own_tests_pass(directory: Path) -> None:
    result = manage(directory, "test", "--noinput")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Found 0 test" not in result.stdout


def test_the_migrations_are_those_of_the_models(directory: Path) -> None:
    result = manage(directory, "makemigrations", "--check", "--dry-run")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_public_host_needs_a_secret_key(directory: Path) -> None:
    command = [sys.executable, "-c", "import chat.settings"]
    for variables, code in (
        ({"CHAT_HOSTS": "chat.example"}, 1),
        ({"CHAT_HOSTS": "chat.example", "SECRET_KEY": "kept secret"}, 0),
    ):
        result = subprocess.run(
            command,
            cwd=directory,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == code
        assert ("SECRET_KEY must be too" in result.stderr) == bool(code)


@pytest.mark.parametrize(
    ("name", "backend"), [(LOCAL, "local"), (REDIS, "redis://127.0.0.1:6380/0")]
)
def test_the_config_files_are_valid(directory: Path, name: str, backend: str) -> None:
    loaded = load(directory / name, {"PATH": os.environ["PATH"], "PORT": "8123"})
    assert loaded.config.interface is not None
    assert loaded.config.interface.bind == ["127.0.0.1:8123"]
    assert loaded.config.channel_layer.backend == backend
    assert loaded.warnings == []


def test_it_needs_neither_redis_nor_its_client(directory: Path) -> None:
    """Without chansup.redis.toml, that is."""
    blocked = "import sys; sys.modules.update({'redis': None, 'channels_redis': None}); "
    result = subprocess.run(
        [sys.executable, "-c", f"{blocked}import chat.asgi, rooms.layer"],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "redis" not in (directory / "requirements.txt").read_text()


def test_pages_need_nothing_from_other_hosts() -> None:
    for path in EXAMPLE.rglob("*"):
        if path.suffix in {".html", ".css", ".js"} and "data" not in path.parts:
            text = path.read_text()
            assert "https://" not in text, path
            assert "http://" not in text, path
