"""`chansup exec`: a command with the environment of the site."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.kit import everybody
from tests.running import command

CONFIG = """
[app]
asgi = "site_app:app"
directory = "app"
env_file = "site.env"
environment = { COLOUR = "blue" }

[interface]
bind = "127.0.0.1:0"

[workers.mail]
command = "sleep 1000"
environment = { ONLY = "mail" }
umask = "027"
"""
SHOW = (
    "import json, os; print(json.dumps([os.getcwd(), dict(os.environ), os.umask(0), os.getuid()]))"
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "site.env").write_text("SECRET=hunter2\n")
    (tmp_path / "chansup.toml").write_text(CONFIG)
    return tmp_path


def shown(site: Path, *options: str) -> tuple[str, dict[str, str], int, int]:
    words = ["exec", "-c", str(site / "chansup.toml"), *options, "--", "python", "-c", SHOW]
    done = command(*words, cwd="/")
    assert done.returncode == 0, done.stderr
    directory, environment, umask, user = json.loads(done.stdout)
    return directory, environment, umask, user


def test_it_runs_as_the_site_does(site: Path) -> None:
    directory, environment, _, user = shown(site)
    assert directory == environment["PWD"] == str(site / "app")
    assert (environment["SECRET"], environment["COLOUR"]) == ("hunter2", "blue")
    assert environment["CHANSUP_CONFIG"] == str(site / "chansup.toml")
    assert environment["PATH"].startswith(os.path.dirname(sys.executable))
    assert "ONLY" not in environment
    assert user == os.getuid()


def test_it_runs_as_a_pool_does(site: Path) -> None:
    _, environment, umask, _ = shown(site, "--pool", "mail")
    assert environment["ONLY"] == "mail"
    assert umask == 0o027


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--", "sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -TERM $$"], -15, ""),
        (["--", "no-such-program"], 1, 'no program "no-such-program" on the PATH'),
        (["--", "./missing"], 1, "cannot run ./missing"),
        (["--pool", "mial", "--", "true"], 1, 'pool "mial" does not exist'),
        ([], 2, "Missing argument"),
    ],
)
def test_the_exit_code_is_the_command_s(site: Path, words: list[str], code: int, says: str) -> None:
    done = command("exec", "-c", str(site / "chansup.toml"), *words)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(everybody.reason() is not None, reason=str(everybody.reason()))
def test_root_becomes_the_user_of_the_site(site: Path) -> None:
    path = site / "chansup.toml"
    with everybody.directory() as directory:
        (directory / "app").mkdir(mode=0o755)
        (directory / "app" / "site.env").write_text("SECRET=x\n")
        user = 'user = "nobody"\n'
        text = path.read_text().replace("[interface]\n", f"[interface]\n{user}")
        text = text.replace("[workers.mail]\n", f"[workers.mail]\n{user}")
        (directory / "chansup.toml").write_text(text)
        words = ["exec", "-c", str(directory / "chansup.toml"), "--", "id", "-un"]
        assert command(*words).stdout == "nobody\n"


def test_no_line_of_the_help_is_cut_off() -> None:
    shown = command("--help", env={**os.environ, "COLUMNS": "80"}).stdout
    assert "exec" in shown
    assert "..." not in shown.replace("[ARGS]...", "")


def test_bench_says_what_its_c_is() -> None:
    done = command("bench", "-c", "chansup.toml", "http://127.0.0.1:1/")
    assert done.returncode == 2
    assert "its -c is --connections" in done.stderr
