"""Each page's commands are run, one after the other, and print what the page says."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Block, all_blocks, blocks, name
from tests.docs.scene import GIVEN, Scene

# Commands that are shown and not run, by how they begin.
NOT_RUN = {
    "make": "takes the whole machine; CI runs it",
    "pip install": "downloads packages",
    "pip wheel": "takes long; it is a checkout that it is run in",
    "python3 -m venv": "makes an environment for pip",
    "/srv/mysite/venv/bin/pip": "downloads packages",
    "/srv/mysite/releases/2/venv/bin/pip": "downloads packages",
    "docker": "needs a Docker daemon",
    "systemctl": "needs systemd as PID 1",
    "sudo systemctl": "needs systemd as PID 1",
    "sudo apt": "installs packages of the system",
    "sudo user": "makes or changes a user of the system",
    "sudo --login": "needs another user",
    "sudo cp wheels/": "needs a wheel",
    "sudo certbot": "needs a domain and Let's Encrypt",
    "sudo ln -sf /etc/letsencrypt": "needs what certbot wrote",
    "echo 'PATH=": "is for a shell of the site's user",
}
# Languages of blocks that nobody here could run.
SHOWN = {
    "text": "pictures, and files that are looked at by their notes",
    "nginx": "parts; whole sites have notes, and run",
    "html": "templates, by their notes",
    "javascript": "scripts of pages, by their notes",
    "json": "documents, held by test_api",
    "yaml": "for Kubernetes, and for Prometheus",
    "promql": "held by tests/control",
    "": "grammar",
}
# That a newcomer follows; `make ci` runs all of them.
FIRST_PAGES = ("README.md", "docs/tutorial.md", "docs/handover.md")
IN_MEMORY = "channels.layers.InMemoryChannelLayer"
HANDLED = {"console", "sh", "toml", "python", "dockerfile"}


def acts(block: Block) -> bool:
    return (
        block.language == "console"
        or bool({"run"} & set(block.notes))
        or any(block.note(prefix) for prefix in ("file:", "append:", "edited:", "given:"))
    )


# The tutorial is a whole site behind nginx, with two deploys: `make ci` walks it.
LONG = {"tutorial.md"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.thorough if page.name in LONG else (), id=name(page))
        for page in PAGES
        if any(map(acts, blocks(page)))
    ],
)
def test_a_page(page: Path, scene: Scene) -> None:
    for block in blocks(page):
        if given := block.note("given:"):
            scene.give(given)
        if file := block.note("file:"):
            if written := scene.written.get(file):  # by `chansup init`, and shown here
                assert block.text == written, f"{block}: {file} is another now"
            else:
                scene.write(file, block.text)
        if file := block.note("edited:"):  # what a command wrote, and the reader changed
            scene.write(file, block.text)
        if file := block.note("append:"):
            scene.append(file, block.text)
        if "run" in block.notes:
            scene.start()
        if block.language == "console":
            run(block, scene)
        if "output of chansup run" in block.notes:
            for line in block.text.splitlines():
                scene.wait_for_line(line)


def run(block: Block, scene: Scene) -> None:
    steps = commands(block)
    for place, (command, expected) in enumerate(steps):
        scene.run(command, expected)
        fails = place + 1 < len(steps) and steps[place + 1][0] == "echo $?"
        assert scene.exit_code == 0 or fails or command == "echo $?", f"{block}: {command}"


def commands(block: Block) -> list[tuple[str, str]]:
    """Return each command of a console block with what it prints."""
    assert block.text.startswith("$ "), f"{block} does not begin with a command"
    pieces = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    found = []
    for piece in pieces:
        match = re.match(r"(?:.*\\\n)*.*\n?", piece)  # its line, and those that continue with it
        assert match is not None
        found.append((match[0].rstrip("\n"), piece[match.end() :]))
    return found


@pytest.mark.parametrize("block", all_blocks("sh"), ids=str)
def test_what_is_not_run_is_on_the_list(block: Block) -> None:
    if block.note("file:"):
        subprocess.run(["sh", "-n"], input=block.text, text=True, check=True)
        return
    for line in block.text.replace("\\\n", "").splitlines():
        assert line.startswith(tuple(NOT_RUN)), f"{block}: {line}"
        shlex.split(line, comments=True)


def test_every_block_is_dealt_with() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in {*SHOWN, *HANDLED}, block
            assert block.note("given:") in (None, *GIVEN), block


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_is_python(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(block.text, str(block), "exec")
    if "django settings" in block.notes:
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
        settings: dict[str, object] = {}
        exec(code, settings)
        layers = settings["CHANNEL_LAYERS"]
        assert isinstance(layers, dict)
        for layer in layers.values():
            if layer["BACKEND"].startswith("channels_redis."):
                assert layer["CONFIG"]["hosts"][0]["socket_timeout"] is None
            else:
                assert layer["BACKEND"] in ("chansup.layer.ChannelLayer", IN_MEMORY)


def instructions(block: Block) -> list[list[str]]:
    return [line.split(None, 1) for line in block.text.splitlines()]


@pytest.mark.parametrize("block", all_blocks("dockerfile"), ids=str)
def test_a_dockerfile_runs_chansup_as_pid_1(block: Block) -> None:
    *_, (word, rest) = instructions(block)
    assert word == "CMD"
    assert json.loads(rest) == ["chansup", "run"]


def test_the_health_check_of_the_dockerfile(scene: Scene) -> None:
    checks = [
        json.loads(rest.partition("CMD ")[2])
        for block in all_blocks("dockerfile")
        for word, rest in instructions(block)
        if word == "HEALTHCHECK"
    ]
    assert checks
    for program, *arguments in checks:
        assert program == "python"
        command = [sys.executable, *map(scene.here, arguments)]
        scene.give("a small app, running")
        subprocess.run(command, check=True)
        scene.end()
        assert subprocess.run(command, capture_output=True).returncode == 1


def test_the_nginx_of_the_tutorial_is_the_one_to_copy() -> None:
    (shown,) = (block for block in all_blocks("nginx") if block.note("file:"))
    assert shown.text == (ROOT / "contrib/nginx/site.conf").read_text()


@pytest.mark.parametrize(
    "block", [block for block in all_blocks("text") if block.note("file:")], ids=str
)
def test_a_procfile_has_one_line(block: Block) -> None:
    assert block.note("file:") == "Procfile"
    assert block.text == "web: chansup run\n"
