"""What is measured: servers under chansup, and the same servers in their own multi-process mode.

Access logs are off everywhere, for they are the most expensive part of a small answer. Everything
else is as each project ships it.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.apps.releases import Releases, read_body
from benchmarks.process import Process, StartError, free_port, output_of
from tests.load import RequestError, get

REPOSITORY = Path(__file__).resolve().parent.parent
SERVERS = ("uvicorn", "granian", "hypercorn", "daphne", "gunicorn")
APPLICATION = "site_asgi:application"
WSGI_APPLICATION = "site_wsgi:application"
RELOAD_TIMEOUT = 120.0  # seconds; a rollout that takes longer has failed


@dataclass
class Site:
    """One deployment to serve: its releases, and how the code behaves."""

    root: Path
    processes: int = 2
    import_seconds: float = 1.0
    application: str = APPLICATION
    releases: Releases = field(init=False)

    def __post_init__(self) -> None:
        self.releases = Releases(self.root)
        (self.root / "work").mkdir(parents=True, exist_ok=True)

    @property
    def gateway(self) -> str:
        """Which interface the application has."""
        return "wsgi" if self.application == WSGI_APPLICATION else "asgi"

    @property
    def directory(self) -> Path:
        """Where servers are started: not in a release, which would pin the release."""
        return self.root / "work"

    @property
    def environment(self) -> dict[str, str]:
        """The application's environment. Code is found through the symlink at each import."""
        return {
            "SITE_IMPORT_SECONDS": str(self.import_seconds),
            "PYTHONPATH": str(self.releases.current),
        }


class Contender:
    """One way to serve a site with several processes."""

    label = ""
    has_reload = True

    def __init__(self, server: str, site: Site) -> None:
        self.server = server
        self.site = site
        self.port = free_port()
        self.processes: list[Process] = []  # the first one is the parent of the others, if any is

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    @property
    def main(self) -> Process:
        """The process that gets the signals."""
        return self.processes[0]

    async def spawn(self) -> None:
        """Start its processes; they need not be ready."""
        raise NotImplementedError

    async def begin_reload(self) -> int | None:
        """Ask for a reload; return the exit status of a command that waits for the outcome."""
        self.main.send_signal(signal.SIGHUP)
        return None

    async def start(self, timeout: float = 60.0) -> set[int]:
        """Start it, wait until all processes answer, and return their pids.

        A shared socket may never show all of them; then those seen within a few seconds are
        returned. Raises StartError when nothing answers.
        """
        await self.spawn()
        deadline = time.monotonic() + timeout
        seen: set[int] = set()
        while len(seen) < self.site.processes and time.monotonic() < deadline:
            if not self.main.is_running:
                break
            try:
                answer = await get(self.address, timeout=5)
            except RequestError:
                await asyncio.sleep(0.02)
                continue
            if answer.status != 200:
                await asyncio.sleep(0.1)
                continue
            if not seen:
                deadline = min(deadline, time.monotonic() + self.site.import_seconds + 6)
            seen.add(read_body(answer.body)[1])
            await asyncio.sleep(0.002)
        if not seen:
            said = "\n".join(process.tail() for process in self.processes)
            await self.stop()
            raise StartError(f"{self.label} does not serve; it printed:\n{said}")
        return seen

    def pids(self) -> set[int]:
        """Return all of its processes that run now."""
        running = {process.pid for process in self.processes if process.is_running}
        for process in self.processes:
            running.update(descendant.pid for descendant in process.descendants())
        return running

    async def stop(self) -> None:
        """Stop all of its processes."""
        await asyncio.gather(*(process.stop() for process in self.processes))

    async def __aenter__(self) -> "Contender":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _spawn(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.processes.append(
            await Process.start(
                arguments,
                directory=self.site.directory,
                environment={**self.site.environment, **(environment or {})},
                descriptors=descriptors,
            )
        )


class Chansup(Contender):
    """A server under chansup, in direct mode."""

    keys = ""  # further ones of [interface]

    def __init__(self, server: str, site: Site, extra: str = "", admin: str = "") -> None:
        super().__init__(server, site)
        self.label = f"chansup, {server}{' (WSGI)' if site.gateway == 'wsgi' else ''}"
        self.extra = extra  # further tables of the config file
        self.admin = admin
        self.interfaces = site.processes
        self.environment = environment_of_chansup()
        self.config = site.root / "chansup.toml"
        self.runtime_directory = site.root / "run"

    async def spawn(self) -> None:
        self.write_config()
        await self._spawn(chansup_command("run", self.config), self.environment)

    def write_config(self) -> None:
        """Write the config file."""
        quoted = {
            "application": self.site.application,
            "directory": str(self.site.releases.current),
            "seconds": str(self.site.import_seconds),
            "bind": self.address,
            "server": self.server,
            "admin": self.admin,
            "runtime": str(self.runtime_directory),
        }
        value = {key: json.dumps(text) for key, text in quoted.items()}
        self.config.write_text(
            f"""\
[app]
{self.site.gateway} = {value["application"]}
directory = {value["directory"]}
environment = {{ SITE_IMPORT_SECONDS = {value["seconds"]} }}

[interface]
bind = {value["bind"]}
server = {value["server"]}
processes = {self.interfaces}
{self.keys}

[admin]
bind = {value["admin"]}

[supervisor]
runtime_directory = {value["runtime"]}
{self.extra}"""
        )

    async def begin_reload(self) -> int | None:
        code, said, _ = await output_of(
            chansup_command("reload", self.config),
            directory=self.site.directory,
            environment=self.environment,
            timeout=RELOAD_TIMEOUT,
        )
        self.reload_output = said
        return code

    async def status(self) -> tuple[dict[str, object] | None, float]:
        """Return what `chansup status --json` says, None if nothing, and how long it took."""
        code, said, took = await output_of(
            [*chansup_command("status", self.config), "--json"],
            directory=self.site.directory,
            environment=self.environment,
            timeout=30,
        )
        if code != 0:
            return None, took
        document: dict[str, object] = json.loads(said)
        return document, took


class Carry(Chansup):
    """Direct mode whose WebSockets outlive their process."""

    keys = 'handover = "transparent"'


INTERFACE = "interface"  # the pools of a relay's site
WORKERS = "web"


class Relay(Chansup):
    """A server under chansup, in relay mode: `site.processes` app workers behind it."""

    def __init__(
        self, server: str, site: Site, interfaces: int = 1, workers: str = "", admin: str = ""
    ) -> None:
        serves = 'serves = ["http", "websocket"]'
        table = f"\n[workers.{WORKERS}]\n{serves}\nprocesses = {site.processes}\n{workers}\n"
        super().__init__(server, site, table, admin)
        self.interfaces = interfaces
        self.label = f"relay, {server} {interfaces}+{site.processes}"

    def pids_of(self, pool: str) -> set[int]:
        """Return the processes of a pool that run now."""
        found = set()
        for process in self.main.descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                slots = [b for a, b in itertools.pairwise(command) if a == "--slot"]
                if any(slot.rpartition(".")[0] == pool for slot in slots):
                    found.add(process.pid)
        return found


class OwnReload(Contender):
    """A server's own multi-process mode, reloaded with SIGHUP."""

    def __init__(self, server: str, site: Site, options: Sequence[str] = ()) -> None:
        super().__init__(server, site)
        count = str(site.processes)
        port = str(self.port)
        gateway = site.gateway
        worker_class = ["-k", "asgi"] if gateway == "asgi" else []
        self._arguments, self.label = {
            "uvicorn": (
                ["--host", "127.0.0.1", "--port", port, "--workers", count, "--no-access-log"],
                f"uvicorn --workers {count}",
            ),
            "granian": (
                ["--interface", gateway, "--host", "127.0.0.1", "--port", port, "--workers", count],
                f"granian --interface {gateway} --workers {count}",
            ),
            "hypercorn": (
                ["--bind", self.address, "--workers", count],
                f"hypercorn --workers {count}",
            ),
            "gunicorn": (
                [*worker_class, "--bind", self.address, "--workers", count],
                " ".join(["gunicorn", *worker_class, "-w", count]),
            ),
        }[server]
        self._arguments = [*self._arguments, *options]
        if options:
            self.label += f" {' '.join(options)}"

    async def spawn(self) -> None:
        command = [sys.executable, "-m", self.server, *self._arguments, self.site.application]
        await self._spawn(command)


class Supervisord(Contender):
    """supervisord with one shared socket, restarted one process at a time.

    It is what Channels' documentation recommended for daphne, which has no mode of its own.
    """

    def __init__(self, server: str, site: Site) -> None:
        super().__init__(server, site)
        assert server == "daphne"
        self.label = f"supervisord, daphne x{site.processes}"
        self.config = site.root / "supervisord.conf"

    async def spawn(self) -> None:
        environment = ",".join(f'{key}="{text}"' for key, text in self.site.environment.items())
        # startsecs is all that supervisord knows of readiness: be generous.
        startsecs = int(self.site.import_seconds + 2)
        self.config.write_text(
            f"""\
[supervisord]
nodaemon = true
logfile = /dev/null
logfile_maxbytes = 0
pidfile = {self.site.root}/supervisord.pid

[unix_http_server]
file = {self.site.root}/supervisord.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{self.site.root}/supervisord.sock

[fcgi-program:daphne]
command = {sys.executable} -m daphne --fd 0 --access-log /dev/null -v 0 {self.site.application}
socket = tcp://{self.address}
numprocs = {self.site.processes}
process_name = daphne_%(process_num)d
environment = {environment}
startsecs = {startsecs}
autorestart = true
stdout_logfile = /dev/null
stderr_logfile = /dev/null
"""
        )
        arguments = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self.config)]
        await self._spawn(arguments)

    async def begin_reload(self) -> int | None:
        codes = []
        for number in range(self.site.processes):
            control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self.config)]
            code, _, _ = await output_of(
                [*control, "restart", f"daphne:daphne_{number}"],
                directory=self.site.directory,
                environment=self.site.environment,
                timeout=RELOAD_TIMEOUT,
            )
            codes.append(code)
        return next((code for code in codes if code != 0), 0)


class ByHand(Contender):
    """Single-process servers, started one by one on an inherited socket."""

    has_reload = False

    def __init__(self, server: str, site: Site) -> None:
        super().__init__(server, site)
        self.label = f"{server} by hand x{site.processes}"

    async def spawn(self) -> None:
        with socket.create_server(("127.0.0.1", self.port), backlog=2048) as listener:
            fd = str(listener.fileno())
            arguments = {
                "uvicorn": ["--fd", fd, "--no-access-log"],
                "hypercorn": ["--bind", f"fd://{fd}", "--workers", "1"],
                "daphne": ["--fd", fd, "--access-log", "/dev/null", "-v", "0"],
                "gunicorn": ["-k", "asgi", "--bind", f"fd://{fd}", "--workers", "1"],
            }[self.server]
            command = [sys.executable, "-m", self.server, *arguments, self.site.application]
            for _ in range(self.site.processes):
                await self._spawn(command, descriptors=[listener.fileno()])


def own_reload_of(server: str, site: Site) -> Contender | None:
    """Return what people use to reload this server today, if there is such a thing here."""
    if site.gateway == "wsgi" and server not in ("gunicorn", "granian"):
        return None
    if server != "daphne":
        return OwnReload(server, site)
    return Supervisord(server, site) if importlib.util.find_spec("supervisor") else None


def chansup_command(command: str, config: Path) -> list[str]:
    """Return the arguments that run chansup from this repository."""
    return [sys.executable, "-m", "chansup", command, "-c", str(config)]


def environment_of_chansup() -> dict[str, str]:
    """Return what finds the package in this repository, whether it is installed or not."""
    return {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}


def is_alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def all_gone(pids: set[int], timeout: float) -> bool:
    """Wait until none of the processes runs; they are not children of this one, so it polls."""
    deadline = time.monotonic() + timeout
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def kill(pid: int) -> float:
    """Send SIGKILL and return when."""
    moment = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return moment
