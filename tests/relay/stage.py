"""A site in relay mode with the app of `witness`, for the acceptance tests."""

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chansup.cli.client import Client, find
from chansup.protocol.status import SlotStatus
from chansup.supervisor.metrics.metrics import MAX_AGE
from tests import fetch
from tests.running import Running, running, wait_for

HERE = Path(__file__).parent
_CONFIG = """
[app]
asgi = "witness:app"
directory = "{home}"
environment = {{ WITNESS = "{place}" }}

[interface]
bind = "127.0.0.1:0"
server = "{server}"
processes = {interfaces}
{interface}

[workers.web]
serves = {serves}
processes = {workers}
{web}

[rollout]
settle = 0.05
drain_spread = {drain_spread}
surge = {surge}
keep_alive = 0.3
stop_timeout = {stop_timeout}

[admin]
bind = "127.0.0.1:0"
{more}
"""


class Stage:
    """A running site, and the files that its app writes."""

    def __init__(self, run: Running, place: Path) -> None:
        self.run = run
        self.place = place
        self.client: Client = find(run.config, os.environ)
        self.address = ""
        self._admin: str | None = None
        self._scraped = -MAX_AGE

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            status = self.client.status()
            return status.state == "running" and status.ready

        self.wait_for(is_ready, "readiness")
        status = self.client.status()
        self.address = status.addresses[0]
        self._admin = status.admin

    def wait_for(self, happened: Any, what: str = "") -> Any:
        return wait_for(_patiently(happened), what, self.run._tell_if_ended)

    # Processes

    def slots(self, pool: str = "web") -> list[SlotStatus]:
        pools = self.client.status().pools
        return [slot for one in pools if one.name == pool for slot in one.slots]

    def pids(self, pool: str = "web") -> list[int]:
        """Return the processes of a pool that are ready."""
        return [slot.pid for slot in self.slots(pool) if slot.pid and slot.state == "READY"]

    def draining(self, pool: str = "web") -> list[int]:
        return [one.pid for slot in self.slots(pool) for one in slot.draining]

    def deploy(self, target: str = "web") -> None:
        """Replace every process of a pool, or of a slot."""
        *_, result = self.client.restart(target)
        assert result.exit_code == 0, result

    def reload(self) -> None:
        *_, result = self.client.reload()
        assert result.exit_code == 0, result

    def scale(self, number: int, pool: str = "web") -> None:
        *_, result = self.client.scale(pool, number)
        assert result.exit_code == 0, result

    def waiting(self, pool: str = "web") -> int:
        """Return how many wait for a worker."""
        queues = [one.queue for one in self.client.status().pools if one.name == pool]
        return sum(queue.waiting for queue in queues if queue is not None)

    def lose_all_workers(self) -> None:
        """Kill them, and let no other one start."""
        self.tell("refuse")
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)

    def let_workers_start(self) -> None:
        """Take `lose_all_workers` back. The supervisor tries again soon."""
        (self.place / "refuse").unlink()

    def wait_for_workers(self, number: int, besides: Any = (), pool: str = "web") -> None:
        """Wait until `number` processes other than `besides` are ready."""
        self.wait_for(lambda: len(set(self.pids(pool)) - set(besides)) >= number, "workers")

    # What the app wrote

    def lines(self, name: str) -> list[str]:
        try:
            return (self.place / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def wait_for_line(self, name: str, number: int = 1) -> list[str]:
        """Wait until the app has written `number` lines."""

        def are_there() -> list[str]:
            found = self.lines(name)
            return found if len(found) >= number else []

        found: list[str] = self.wait_for(are_there, f"{number} lines in {name}")
        return found

    def tell(self, name: str) -> None:
        """Make the file that the app waits for."""
        (self.place / name).touch()

    # What chansup counted

    def metrics(self) -> dict[str, float]:
        """Return the samples of the relay as they are now: {'poison_total{pool="web"}': 1.0}."""
        age = time.monotonic() - self._scraped
        if age <= MAX_AGE:
            time.sleep(MAX_AGE - age + 0.05)  # for so long the same page is given
        text = fetch.get(f"http://{self._admin}/metrics").text
        self._scraped = time.monotonic()
        found = re.findall(r"^chansup_relay_(\S+) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def metric(self, name: str, pool: str = "web", **labels: str) -> float:
        """Return the sum of the present samples of one name and these labels."""
        return self.sum(self.metrics(), name, pool, **labels)

    @staticmethod
    def sum(metrics: Mapping[str, float], name: str, pool: str = "web", **labels: str) -> float:
        wanted = [f'{label}="{value}"' for label, value in {"pool": pool, **labels}.items()]
        return sum(
            value
            for sample, value in metrics.items()
            if sample.startswith(name + "{") and all(one in sample for one in wanted)
        )

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def mean_pause(metrics: Mapping[str, float]) -> float:
    """Return the seconds that a WebSocket which moved was without a worker."""
    total, count = (Stage.sum(metrics, f"handover_pause_seconds_{one}") for one in ("sum", "count"))
    return total / max(1, count)


def _patiently(happened: Any) -> Any:
    from chansup.errors import ChansupError

    def look() -> Any:
        try:
            return happened()
        except ChansupError as error:
            raise AssertionError(str(error)) from None

    return look


@contextmanager
def stage(
    directory: Path,
    *,
    home: Path = HERE,
    workers: int = 1,
    interfaces: int = 1,
    server: str = "uvicorn",
    interface: str = "",
    serves: str = '["http", "websocket"]',
    web: str = "",
    more: str = "",
    stop_timeout: float = 10,
    drain_spread: float = 0.2,
    surge: int = 1,
    environ: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[Stage]:
    """Run the site, with the app of the directory `home`. `interface`, `web` and `more` are lines of the config."""
    place = directory / "witness"
    (place / "present").mkdir(parents=True)
    config = _CONFIG.format(
        home=home, place=place, serves=serves, server=server, workers=workers, interfaces=interfaces,
        interface=interface, web=web, more=more, stop_timeout=stop_timeout,
        drain_spread=drain_spread, surge=surge,
    )  # fmt: skip
    with running(directory, config, environ) as run:
        stage = Stage(run, place)
        if ready:
            stage.wait_until_ready()
        yield stage
