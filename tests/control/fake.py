"""A supervisor without processes: the `Commands` protocol, answered from what a test put in.

``python fake.py SOCKET ADMIN-PORT-FILE`` serves it with the real servers until SIGTERM, for tests
that run the CLI as a process of its own.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec

from chansup.protocol import scoreboard
from chansup.protocol.status import (
    Consumption,
    DrainingStatus,
    Event,
    HeldStatus,
    LogLine,
    Measurement,
    PoolStatus,
    QueueStatus,
    RolloutStatus,
    SlotStatus,
    Status,
    TaskStatus,
)
from chansup.supervisor.carry.counters import HolderReport
from chansup.supervisor.errors import UnknownTargetError

from . import consumed

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/srv/site/current/site/asgi.py", line 3, in <module>',
    "    import nothere",
    "ModuleNotFoundError: No module named 'nothere'",
]


def slot(name: str, state: str = "READY", **changes: object) -> SlotStatus:
    alive = state in ("READY", "STARTING", "DRAINING")
    fields: dict[str, object] = {
        "name": name,
        "state": state,
        "pid": os.getpid() if alive else None,
        "generation": 3,
        "started": time.time() - 7423 if alive else None,
        "restarts": {},
        "last_exit": None,
        "last_exit_code": None,
        "status": None,
        "retry_in": None,
        "output": [],
        "requests_in_progress": 0,
        "websockets_open": 0,
        "loop_lag": 0.0004 if alive else None,
        "draining": [],
    }
    return SlotStatus(**(fields | changes))  # type: ignore[arg-type]


def interesting() -> Status:
    """A status in which something of everything happens."""
    now = time.time()
    return Status(
        version="0.1.0",
        pid=os.getpid(),
        config="/srv/site/chansup.toml",
        directory="/srv/site/releases/42",
        generation=3,
        state="running",
        ready=False,
        reasons=["thumbnails: 0 of 2 processes ready"],
        started=now - 190_000,
        addresses=["0.0.0.0:8000", "unix:/run/site/web.sock"],
        steering="steered",
        admin="127.0.0.1:9180",
        rollout=RolloutStatus(4, "running", 1, 5, now - 4, 4.2, "interface.1: waits for READY"),
        pools=[
            PoolStatus(
                "interface", "interface", "uvicorn site.asgi:application", 2, 2,
                [
                    slot("interface.0", requests_in_progress=3, websockets_open=1204,
                         restarts={"crash": 1}, last_exit="killed by SIGKILL", last_exit_code=-9),
                    slot("interface.1", websockets_open=1198, draining=[
                        DrainingStatus(4242, 2, now - 12)]),
                ],
                websockets=HeldStatus(2402, 3, 500_000, 1200, 1, 2),
            ),
            PoolStatus(
                "thumbnails", "workers", "python manage.py runworker thumbnails", 2, 0,
                [
                    slot("thumbnails.0", "BACKOFF", restarts={"boot": 7}, last_exit="exit code 1",
                         last_exit_code=1, retry_in=3.4, output=TRACEBACK),
                    slot("thumbnails.1", "STARTING", status="<b>loading</b> \x1b[31mmodels"),
                ],
                QueueStatus(7, 1234, 0.0025),
            ),
            PoolStatus("redis", "programs", "redis-server --requirepass hunter2", 1, 1,
                       [slot("redis.0", loop_lag=None)]),
        ],
        tasks=[TaskStatus("migrate", "succeeded", 3, now - 3600, 2.5, "exit code 0", [])],
        log_lines_dropped=3,
    )  # fmt: skip


def cells(**changes: float) -> list[float]:
    values = [0.0] * scoreboard.CELLS
    for name, value in changes.items():
        values[getattr(scoreboard, name)] = value
    return values


class FakeCommands:
    """Commands over a status, measurements and events that the test may change at any time."""

    def __init__(self) -> None:
        self.current = interesting()
        self.measured: list[Measurement] = []
        self.ended: dict[str, tuple[int, float]] = {}
        self.relay_rows: dict[str, list[float]] = {}
        self.consumed = Consumption(0.0)
        self.holder: HolderReport | None = None
        self.to_come: list[Consumption] = []  # given out before it
        self.called: list[tuple[object, ...]] = []
        self.events: list[Event] = deploy()
        self.lines = [
            LogLine(1_790_000_000.0 + n, "interface.0", 11, f"line {n}") for n in range(5)
        ]
        self.failure: Exception | None = None  # raised by every command
        self.gate = asyncio.Event()  # commands wait here before their result
        self.gate.set()
        self.completed = 0  # commands whose stream was read to the end
        self.coming: asyncio.Queue[LogLine | None] = asyncio.Queue()
        self.stopped = asyncio.Event()

    def status(self) -> Status:
        return self.current

    def measurements(self) -> list[Measurement]:
        return self.measured

    def rollouts(self) -> dict[str, tuple[int, float]]:
        return self.ended

    def relayed(self) -> dict[str, list[float]]:
        return self.relay_rows

    def consumption(self) -> Consumption:
        return self.to_come.pop(0) if self.to_come else self.consumed

    def carried(self) -> HolderReport | None:
        return self.holder

    def reload(self) -> AsyncIterator[Event]:
        return self._stream("reload")

    def restart(self, target: str | None) -> AsyncIterator[Event]:
        self._check(target)
        return self._stream("restart", target)

    def scale(self, pool: str, processes: int) -> AsyncIterator[Event]:
        return self._stream("scale", pool, processes)

    def move(self, mark: str) -> AsyncIterator[Event]:
        return self._stream("move", mark)

    async def stop(self) -> AsyncIterator[Event]:
        async for event in self._stream("stop"):
            yield event
        self.stopped.set()

    def logs(self, target: str | None, lines: int) -> list[LogLine]:
        self._check(target)
        return self.lines[-lines:]

    async def follow(self, target: str | None) -> AsyncIterator[LogLine]:
        self._check(target)
        while (line := await self.coming.get()) is not None:
            yield line

    def _check(self, target: str | None) -> None:
        names = {pool.name for pool in self.current.pools}
        names |= {slot.name for pool in self.current.pools for slot in pool.slots}
        if target is not None and target not in names:
            raise UnknownTargetError(f"unknown pool or slot {target!r}")

    async def _stream(self, *call: object) -> AsyncIterator[Event]:
        self.called.append(call)
        if self.failure is not None:
            raise self.failure
        for event in self.events:
            if event.type == "result":
                await self.gate.wait()
            yield event
        self.completed += 1


def deploy() -> list[Event]:
    return [
        Event("progress", "Checked the config", step="check", total=2, generation=4),
        Event("progress", "interface.0 is ready", "interface", "interface.0", "ready",
              done=1, total=2, generation=4),
        Event("progress", "interface.1 is ready", "interface", "interface.1", "ready",
              done=2, total=2, generation=4),
        Event("result", "Generation 4 runs.", outcome="succeeded", done=2, total=2, generation=4),
    ]  # fmt: skip


def broken_deploy() -> list[Event]:
    return [
        *deploy()[:1],
        Event("output", "interface.0 did not boot:", "interface", "interface.0", lines=TRACEBACK),
        Event("result", "The rollout failed: exit code 1. Generation 3 still serves.",
              outcome="failed", exit_code=1),
    ]  # fmt: skip


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def tcp_listener(address: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((address, 0))


async def serve(control_path: Path, scenario: Iterable[str]) -> None:
    """Serve a fake on the control socket until it is stopped, printing what it is called with."""
    from chansup.supervisor.api.control import Control
    from chansup.supervisor.api.http import control_server

    fake = FakeCommands()
    scenario = list(scenario)
    if "broken" in scenario:
        fake.events = broken_deploy()
    if "measured" in scenario:
        fake.to_come, fake.consumed = [consumed.before()], consumed.after()
        fake.current = consumed.shown(fake.current)
    if "behind" in scenario:
        fake.to_come, fake.consumed = [consumed.before()], consumed.after(behind=True)
    if "held" in scenario:
        fake.gate.clear()
    if "flood" in scenario:
        fake.lines = [LogLine(0.0, "interface.0", 1, f"{n} {'x' * 200}") for n in range(20_000)]
    if "dies" in scenario:
        fake.events = fake.events[:-1]
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, fake.stopped.set)
    async with control_server(Control(fake), unix_listener(control_path)):
        print("ready", flush=True)
        await fake.stopped.wait()
    for call in fake.called:
        print(msgspec.json.encode(call).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2:]))
