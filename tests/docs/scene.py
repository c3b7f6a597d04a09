"""A scratch machine for one page: its directory, ports and supervisor, where its commands are run.

The docs speak of /srv/mysite, port 8000 and port 9180; here these are a temporary directory and
free ports of the loopback address, and what commands print is translated back.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests import fetch
from tests.docs.machine import Machine
from tests.running import PATIENCE, survivors, wait_for, write_app
from tests.servers import redis

SITE = "/srv/mysite"
PORT, ADMIN_PORT = 8000, 9180
START_SERVICE = "sudo systemctl enable --now chansup"  # of the unit that the page installed

CHANNELS_SETTINGS = """
INSTALLED_APPS += ["channels"]
CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}
"""
CHANNELS_ASGI = """
from channels.consumer import SyncConsumer
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter


class Thumbnails(SyncConsumer):
    def make(self, message):
        pass


class Room(WebsocketConsumer):
    groups = ["everybody"]


application = ProtocolTypeRouter(
    {
        "http": application,
        "websocket": Room.as_asgi(),
        "channel": ChannelNameRouter({"thumbnails": Thumbnails.as_asgi()}),
    }
)
"""

SMALL = """
[app]
asgi = "site_app:app"

[interface]
bind = "127.0.0.1:8000"
processes = 2
"""


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


class Scene:
    """Where the commands of one page happen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.cwd = self.directory
        self.written: dict[str, str] = {}  # files as chansup wrote them, by name
        self.exit_code = 0  # of the last command
        self.port, self.admin_port, *ports = free_ports(4)
        self.machine = Machine(self.directory, *ports)
        self._marker = {"CHANSUP_TEST": str(self.directory)}
        self._log = directory.with_name(f"{directory.name}.log")
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._environment = {
            **{key: value for key, value in os.environ.items() if key != "CHANSUP_CONFIG"},
            **self._marker,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PORT": str(self.port),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",  # the pages show the order of a terminal
            **{f"GIT_{who}_{what}": "docs@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }  # fmt: skip

    # Texts

    def here(self, text: str) -> str:
        """Translate a text of the docs to this machine."""
        text = text.replace("/run/chansup-mysite", f"{self.directory}/.chansup")
        text = self.machine.here(text).replace(SITE, str(self.directory))
        text = re.sub(r"0\.0\.0\.0:(\$\{PORT|8000)", r"127.0.0.1:\1", text)
        text = text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self.port}")
        return text.replace(f":{ADMIN_PORT}", f":{self.admin_port}")

    def write(self, name: str, text: str) -> None:
        path = self.cwd / self.here(name)
        path.write_text(self.here(text))
        if text.startswith("#!"):
            path.chmod(0o755)
        self._tame()

    def append(self, name: str, text: str) -> None:
        with (self.cwd / name).open("a") as file:
            file.write(self.here(text))

    def _tame(self) -> None:
        """See to it that the config in this directory listens on our own ports, loopback only."""
        path = self.directory / "chansup.toml"
        if path.exists():
            text = path.read_text()
            self.written.setdefault(path.name, text)
            text = self.here(text)
            if "[admin]" not in text:
                text += f'\n[admin]\nbind = "127.0.0.1:{self.admin_port}"\n'
            if "[supervisor]" not in text:
                text += f'\n[supervisor]\nruntime_directory = "{self.directory}/.chansup"\n'
            path.write_text(text)

    # Commands

    def run(self, command: str, expected: str) -> None:
        """Run a command of the docs; it must print what stands there."""
        if command == "chansup run":
            self.start()
            self.exit_code = 0
            for line in expected.splitlines():
                self.wait_for_line(line)
            return
        if command == START_SERVICE:
            self.start_service()
            self.exit_code = 0
            return
        if command == "echo $?":
            assert int(expected) == self.exit_code
            return
        done = subprocess.run(
            ["bash", "-c", self.here(command)], cwd=self.cwd, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=2 * PATIENCE,
        )  # fmt: skip
        self.exit_code = done.returncode
        self._tame()
        printed = self.machine.back(done.stdout).replace(str(self.directory), SITE).strip()
        if expected.strip():
            assert re.fullmatch(pattern(expected), printed, re.DOTALL), (
                f"$ {command}\n{printed}\n--- but the docs say:\n{expected}"
            )

    def start(self) -> None:
        self._start([sys.executable, "-m", "chansup", "run"], {}, -1)

    def start_service(self) -> None:
        """Start what the unit says, as far as that takes no systemd and no other user."""
        command, variables, umask = self.machine.service()
        program, *arguments = [self.here(word) for word in command]
        assert program == f"{self.directory}/venv/bin/chansup"
        variables = {name: self.here(value) for name, value in variables.items()}
        self._start([sys.executable, "-m", "chansup", *arguments], variables, umask)

    def _start(self, command: list[str], variables: dict[str, str], umask: int) -> None:
        with self._log.open("wb") as log:
            self._supervisor = subprocess.Popen(
                command,
                cwd=self.directory, env=self._environment | variables, umask=umask,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for(self._is_ready, "a site that is ready", self.output)

    def _is_ready(self) -> bool:
        assert self._supervisor is not None
        if self._supervisor.poll() is not None:
            raise RuntimeError(f"chansup ended:\n{self.output()}")
        try:
            state = fetch.get(f"http://127.0.0.1:{self.admin_port}/healthz").json()
        except httpx.TransportError:
            return False
        # Not /readyz: it is content with half of the processes, and the docs show all of them.
        return bool(state["state"] == "running" and not state["reasons"])

    def wait_for_line(self, line: str) -> None:
        expected = re.compile(pattern(line))
        wait_for(lambda: expected.search(self.output()), line, self.output)

    def output(self) -> str:
        return self._log.read_text(errors="replace").replace(str(self.directory), SITE)

    def end(self) -> None:
        """Stop what runs; nothing of it may be left."""
        code = 0
        self.machine.end()
        if self._supervisor is not None:
            self._supervisor.send_signal(signal.SIGTERM)
            try:
                code = self._supervisor.wait(PATIENCE)
            finally:
                self._supervisor.kill()
                self._supervisor.wait()
        assert not survivors(self._marker)
        assert code == 0, self.output()

    # What the docs take for given

    def give(self, what: str) -> None:
        GIVEN[what](self)

    def a_django_project(self) -> None:
        self._django(self.cwd)

    def a_django_project_with_channels(self) -> None:
        pytest.importorskip("channels")
        self._django(self.cwd)
        for name, more in (("settings", CHANNELS_SETTINGS), ("asgi", CHANNELS_ASGI)):
            with (self.cwd / f"mysite/{name}.py").open("a") as file:
                file.write(more)

    def a_machine(self) -> None:
        self.machine.furnish()
        self._environment["PATH"] = f"{self.machine.programs}:{self._environment['PATH']}"
        self._environment["NO_PROXY"] = self._environment["no_proxy"] = "localhost"

    def a_web_socket(self) -> None:
        self.machine.connect()

    def the_web_socket(self) -> None:
        self.machine.speak("after")

    def redis_server(self) -> None:
        redis.require()
        pytest.importorskip("channels_redis")
        (self.directory / "shared").mkdir()

    def _django(self, directory: Path) -> None:
        django_admin = [sys.executable, "-m", "django", "startproject", "mysite", str(directory)]
        subprocess.run(django_admin, check=True, env=self._environment)

    def new_code(self) -> None:
        with (self.cwd / "mysite/urls.py").open("a") as urls:
            urls.write("# new\n")
        self._commit()

    def broken_code(self) -> None:
        with (self.cwd / "mysite/asgi.py").open("a") as asgi:
            asgi.write("import nosuch\n")
        self._commit()

    def a_server(self) -> None:
        (self.directory / "shared").mkdir()
        (self.directory / "shared/env").write_text("SECRET_KEY=not-so-secret\n")
        self.cwd = self.directory / "checkout"
        self.cwd.mkdir()
        self._django(self.cwd)
        self._git("init", "--quiet")
        self._commit()

    def it_runs_and_there_is_new_code(self) -> None:
        self.start()
        self.new_code()

    def _commit(self) -> None:
        if (self.cwd / ".git").exists():
            self._git("add", "manage.py", "mysite")
            self._git("commit", "--quiet", "--message", "A change")

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.cwd, env=self._environment, check=True)

    def a_small_app(self) -> None:
        write_app(self.directory)
        if not (self.directory / "chansup.toml").exists():
            self.write("chansup.toml", SMALL)

    def a_small_app_running(self) -> None:
        self.a_small_app()
        self.start()

    def a_small_app_that_is_watched_closely(self) -> None:
        config = self.directory / "chansup.toml"
        config.write_text(
            config.read_text().replace("[interface]", "[interface]\nliveness_timeout = 3")
        )
        self.run("chansup reload", "")
        assert self.exit_code == 0


GIVEN: dict[str, Callable[[Scene], None]] = {
    "a Django project": Scene.a_django_project,
    "a Django project with Channels": Scene.a_django_project_with_channels,
    "a machine with nginx and systemd": Scene.a_machine,
    "a WebSocket that stays open": Scene.a_web_socket,
    "the WebSocket is still open": Scene.the_web_socket,
    "redis-server": Scene.redis_server,
    "new code": Scene.new_code,
    "code that does not import": Scene.broken_code,
    "a server": Scene.a_server,
    "it runs, and there is new code": Scene.it_runs_and_there_is_new_code,
    "a small app, running": Scene.a_small_app_running,
    "liveness_timeout = 3": Scene.a_small_app_that_is_watched_closely,
}


def pattern(expected: str) -> str:
    """Return a regular expression for what the docs say that is printed.

    Numbers may be others, spaces more or fewer, addresses others; "…" stands for anything.
    """
    parts = []
    for part in re.split(r"(…|\b\d+(?:\.\d+){3}:\d+|\d+|\s+)", expected.strip()):
        if part == "…":
            parts.append(r".*?")
        elif re.fullmatch(r"\d+(\.\d+){3}:\d+", part):
            parts.append(r"[\d.]+:\d+")
        elif part.isdigit():
            parts.append(r"\d+")
        elif part.isspace():
            parts.append(r"\s+")
        else:
            parts.append(re.escape(part))
    # "…" may also stand for nothing at all, with the space around it.
    return "".join(parts).replace(r"\s+.*?\s+", r"\s.*?").replace(r".*?\s+", r".*?\s*")
