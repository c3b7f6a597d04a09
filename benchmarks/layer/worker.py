"""How many queued messages does a worker's end lose? chansup's channel worker and `runworker`.

200 messages are queued, the worker is told to end after the first 20, another one does the rest.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.layer import contenders
from benchmarks.layer.contenders import CORE_TCP, HUB, Servers
from benchmarks.layer.others import closed
from benchmarks.process import Process, StartError, free_port, output_of

MODULE = "benchmarks.layer.worker"
CHANNEL = "work"
CAPACITY = 10_000
PATIENCE = 90.0  # seconds
FIRST, LAST = -1, -2  # numbers of messages that show that a worker consumes, and that all is done
CHANSUP, RUNWORKER = "chansup", "runworker"

SETTINGS = """
import json, os
SECRET_KEY = "benchmark"
INSTALLED_APPS = ["channels"]
ASGI_APPLICATION = "work_asgi.application"
CHANNEL_LAYERS = {"default": json.loads(os.environ["BENCHMARK_LAYER"])}
USE_TZ = True
"""

APPLICATION = """
import asyncio, os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "work_settings")
import django
django.setup()
from channels.consumer import AsyncConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter


class Work(AsyncConsumer):
    async def work(self, message):
        await asyncio.sleep(float(os.environ["BENCHMARK_SECONDS"]))
        with open(os.environ["BENCHMARK_DONE"], "a") as done:
            done.write(f"{message['number']}\\n")


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"work": Work.as_asgi()})})
"""

CONFIG = """
[app]
asgi = "work_asgi:application"

[interface]
bind = "127.0.0.1:{port}"

[workers.work]
channels = ["work"]
redeliver = {redeliver}

[channel_layer]
backend = "{backend}"
options = {{ capacity = {capacity} }}

[supervisor]
runtime_directory = "{directory}/run"

[admin]
bind = ""
"""


@dataclass(frozen=True)
class Plan:
    """How many messages, and how long each takes."""

    messages: int = 200
    seconds: float = 0.02
    before: int = 20  # done before the end
    repeats: int = 3


@dataclass(frozen=True)
class Trial:
    """Who is ended, and how."""

    who: str
    layer: str
    signal: signal.Signals
    redeliver: bool = False

    @property
    def label(self) -> str:
        """What the table says."""
        layer = "hub" if self.layer == HUB else "Redis"
        return f"{self.who} on {layer}{', redeliver' if self.redeliver else ''}"


TRIALS = (
    Trial(CHANSUP, HUB, signal.SIGTERM),
    Trial(CHANSUP, CORE_TCP, signal.SIGTERM),
    Trial(RUNWORKER, HUB, signal.SIGTERM),
    Trial(RUNWORKER, CORE_TCP, signal.SIGTERM),
    Trial(CHANSUP, HUB, signal.SIGKILL, redeliver=True),
    Trial(CHANSUP, HUB, signal.SIGKILL),
    Trial(CHANSUP, CORE_TCP, signal.SIGKILL),
    Trial(RUNWORKER, HUB, signal.SIGKILL),
    Trial(RUNWORKER, CORE_TCP, signal.SIGKILL),
)


class Worker:
    """What consumes, and can be ended; another one follows."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.environment = environment
        self.main: Process | None = None

    async def start(self) -> None:
        """Start the first one."""
        raise NotImplementedError

    async def end(self, number: signal.Signals) -> float:
        """End it with a signal; return how long it took to end."""
        raise NotImplementedError

    async def start_another(self) -> None:
        """Let another one take over."""

    async def stop(self) -> None:
        """Stop everything."""
        if self.main is not None:
            await self.main.stop()

    def said(self) -> str:
        """Return what it printed last."""
        return self.main.tail() if self.main is not None else ""


class Runworker(Worker):
    """Channels' own."""

    async def start(self) -> None:
        self.main = await Process.start(
            [sys.executable, "-m", "django", "runworker", CHANNEL],
            directory=self.directory,
            environment=self.environment,
        )

    async def end(self, number: signal.Signals) -> float:
        assert self.main is not None
        began = time.monotonic()
        self.main.send_signal(number)
        if await self.main.wait(PATIENCE) is None:
            raise TimeoutError("runworker does not end")
        return time.monotonic() - began

    async def start_another(self) -> None:
        await self.stop()
        await self.start()


class ChannelWorker(Worker):
    """chansup's, under its supervisor, which starts the next one."""

    async def start(self) -> None:
        self.main = await Process.start(
            [sys.executable, "-m", "chansup", "run"],
            directory=self.directory,
            environment=self.environment,
        )
        deadline = time.monotonic() + PATIENCE
        while not (pid := await self._pid()):
            if not self.main.is_running or time.monotonic() > deadline:
                raise StartError(f"chansup does not start:\n{self.said()}")
            await asyncio.sleep(0.1)
        self._ready = pid

    async def end(self, number: signal.Signals) -> float:
        pid = self._ready
        began = time.monotonic()
        os.kill(pid, number)
        while _runs(pid) and time.monotonic() < began + PATIENCE:
            await asyncio.sleep(0.002)
        return time.monotonic() - began

    async def _pid(self) -> int | None:
        code, printed, _ = await output_of(
            [sys.executable, "-m", "chansup", "status", "--json"],
            directory=self.directory,
            environment=self.environment,
            timeout=PATIENCE,
        )
        if code:
            return None
        for pool in json.loads(printed)["pools"]:
            for slot in pool["slots"]:
                if slot["name"] == "work.0" and slot["state"] == "READY":
                    return int(slot["pid"])
        return None


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def measure(trials: list[Trial], plan: Plan) -> report.Report:
    """Make the trials."""
    result = report.Report(f"Channel workers: {plan.messages} queued messages, and an end")
    with contenders.started() as servers:
        for trial in trials:
            if not servers.present([trial.layer], result.notes):
                continue
            found = []
            for number in range(plan.repeats):
                report.progress(f"{trial.label}, {trial.signal.name}, {number + 1}")
                try:
                    found.append(await _try(trial, servers, plan))
                except (StartError, TimeoutError) as error:
                    text = f"{trial.label} after {trial.signal.name} goes on"
                    result.claim(text, str(error).replace("\n", " ")[:300], False)
                    break
            if found:
                _report(trial, found, plan, result)
    result.notes = list(dict.fromkeys(result.notes))
    result.notes.append(
        f"Each message takes {plan.seconds * 1000:g} ms. {plan.messages} are sent at once, the "
        f"worker gets the signal when {plan.before} are done, and another one starts: chansup's "
        "supervisor starts it, runworker is started anew. lost: neither done before nor after. "
        f"{plan.repeats} runs each; all are shown."
    )
    return result


async def _try(trial: Trial, servers: Servers, plan: Plan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="worker-") as name:
        directory = Path(name)
        (directory / "work_settings.py").write_text(SETTINGS)
        (directory / "work_asgi.py").write_text(APPLICATION)
        done = directory / "done"
        done.touch()
        worker, address = _prepare(trial, servers, directory, done, plan)
        layer = None
        try:
            await worker.start()
            layer = contenders.make(trial.layer, address, CAPACITY)
            await layer.flush()  # what an earlier trial left
            await _send(layer, FIRST)
            await _until(lambda: FIRST in _numbers(done), "a worker that consumes", worker)
            for number in range(plan.messages):
                await _send(layer, number)
            await _until(lambda: len(_numbers(done)) > plan.before, "the first messages", worker)
            took = await worker.end(trial.signal)
            before = len(_numbers(done)) - 1
            await worker.start_another()
            await _send(layer, LAST)
            await _until(lambda: LAST in _numbers(done), "the last message", worker)
        finally:
            if layer is not None:
                await closed(layer)
            await worker.stop()
        counts = Counter(_numbers(done))
        lost = sum(number not in counts for number in range(plan.messages))
        return {
            "before": before,
            "lost": lost,
            "twice": sum(count > 1 for count in counts.values()),
            "took": took,
        }


def _prepare(
    trial: Trial, servers: Servers, directory: Path, done: Path, plan: Plan
) -> tuple[Worker, str]:
    environment = {
        "BENCHMARK_DONE": str(done),
        "BENCHMARK_SECONDS": str(plan.seconds),
        "DJANGO_SETTINGS_MODULE": "work_settings",
        "PYTHONPATH": os.pathsep.join([str(directory), str(Path(__file__).parents[2])]),
    }
    address = servers.addresses[trial.layer]
    if trial.who == CHANSUP:
        if trial.layer == HUB:  # the supervisor's own
            address = str(directory / "run/hub.sock")
        (directory / "chansup.toml").write_text(
            CONFIG.format(
                port=free_port(),
                redeliver=str(trial.redeliver).lower(),
                backend="local" if trial.layer == HUB else address,
                capacity=CAPACITY,
                directory=directory,
            )
        )
        layer: dict[str, Any] = {"BACKEND": "chansup.layer.ChannelLayer"}
    elif trial.layer == HUB:
        config: dict[str, Any] = {"address": address, "capacity": CAPACITY}
        layer = {"BACKEND": "chansup.layer.LocalChannelLayer", "CONFIG": config}
    else:
        config = {"hosts": [contenders.host(address)], "capacity": CAPACITY}
        layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}
    environment["BENCHMARK_LAYER"] = json.dumps(layer)
    kind = ChannelWorker if trial.who == CHANSUP else Runworker
    return kind(directory, environment), address


async def _send(layer: Any, number: int) -> None:
    await layer.send(CHANNEL, {"type": "work", "number": number})


def _numbers(done: Path) -> list[int]:
    return [int(line) for line in done.read_text().splitlines()]


async def _until(happened: Any, what: str, worker: Worker) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}: {worker.said()}")
        await asyncio.sleep(0.01)


def _report(trial: Trial, found: list[dict[str, Any]], plan: Plan, result: report.Report) -> None:
    def listed(key: str) -> str:
        return ", ".join(str(each[key]) for each in found)

    result.rows.append(
        {
            "worker": trial.label,
            "signal": trial.signal.name,
            "done before its end": listed("before"),
            f"lost of {plan.messages}": listed("lost"),
            "done twice": listed("twice"),
            "seconds until its end": ", ".join(f"{each['took']:.2f}" for each in found),
        }
    )
    result.details[f"{trial.label}, {trial.signal.name}"] = found
    if trial.who == CHANSUP and (trial.signal is signal.SIGTERM or trial.redeliver):
        result.claim(
            f"{trial.label} loses nothing at {trial.signal.name}",
            f"lost: {listed('lost')}",
            not any(each["lost"] for each in found),
        )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, (__doc__ or "").partition("\n")[0])
    options.add_argument("--workers", nargs="*", choices=(CHANSUP, RUNWORKER), help="which")
    options.add_argument("--repeats", type=int, help="runs of each")
    arguments = options.parse_args()
    plan = Plan(repeats=arguments.repeats or (1 if arguments.quick else 3))
    trials = [trial for trial in TRIALS if trial.who in (arguments.workers or (trial.who,))]
    return report.run(MODULE, arguments, lambda: measure(trials, plan))


if __name__ == "__main__":
    sys.exit(main())
