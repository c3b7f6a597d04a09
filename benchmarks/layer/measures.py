"""What is measured of one channel layer, with other processes at the other end."""

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from benchmarks.layer import contenders

TEXT = "x" * 30  # about 50 bytes with the rest


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    round_trips: int = 3000
    group_messages: int = 300
    burst: int = 300  # group messages, as fast as they go
    messages: int = 20_000
    seconds: float = 60.0  # that one measure may take

    def for_slow_ones(self) -> "Plan":
        """Return the same with fewer messages."""
        return Plan(self.round_trips // 4, self.group_messages // 3, self.burst // 3, 2000)


class Other:
    """A process at the other end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> Any:
        """Return what it prints next."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        return json.loads(line)


@contextlib.asynccontextmanager
async def other(name: str, address: str, *job: object) -> AsyncIterator[Other]:
    """Run the other process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.layer.member", name, address, *map(str, job)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Other(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def percentile(values: list[float], share: float) -> float:
    """Return a percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def round_trip(name: str, address: str, plan: Plan) -> dict[str, float]:
    """Send a message to another process, and receive its answer: microseconds."""
    layer = contenders.make(name, address)
    own = await layer.new_channel()
    async with other(name, address, "echo") as echo:
        target = await echo.says()
        await asyncio.sleep(0.2)
        times = []
        for number in range(plan.round_trips + 50):
            began = time.monotonic()
            await layer.send(target, {"type": "ask", "reply": own, "text": TEXT})
            await layer.receive(own)
            if number >= 50:
                times.append(1e6 * (time.monotonic() - began))
    await _closed(layer)
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99)}


async def fan_out(name: str, address: str, plan: Plan) -> dict[str, float]:
    """Send to a group of 100 in two processes, until the last has it: ms, and deliveries/s."""
    layer = contenders.make(name, address)
    async with (
        other(name, address, "members", 50) as first,
        other(name, address, "members", 50) as second,
    ):
        await asyncio.gather(first.says(), second.says())
        times = []
        for number in range(plan.group_messages):
            began = time.monotonic()
            await layer.group_send("members", {"type": "m", "number": number, "tell": True})
            ended = await asyncio.gather(first.says(), second.says())
            times.append(1e3 * (max(ended) - began))
        began = time.monotonic()
        for number in range(plan.burst):
            last = number == plan.burst - 1
            message = {"type": "m", "number": number, "tell": last, "text": TEXT}
            await layer.group_send("members", message)
        ended = await asyncio.gather(first.says(), second.says())
        rate = 100 * plan.burst / (max(ended) - began)
    await _closed(layer)
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99), "rate": rate}


async def throughput(name: str, address: str, plan: Plan, senders: int) -> int | None:
    """Send to one receiver in another process: messages per second, if they come in order."""
    layer = contenders.make(name, address)
    async with other(name, address, "sink", plan.messages) as sink:
        target = await sink.says()
        await asyncio.sleep(0.2)
        numbers = iter(range(plan.messages))

        async def send() -> None:
            for number in numbers:
                await layer.send(target, {"type": "m", "number": number, "text": TEXT})

        began = time.monotonic()
        await asyncio.gather(*(send() for _ in range(senders)))
        ended = await sink.says()
    await _closed(layer)
    return None if isinstance(ended, str) else round(plan.messages / (ended - began))


async def in_memory(plan: Plan) -> dict[str, float]:
    """Do the same with Channels' layer in memory, which knows one process."""
    layer = contenders.make(contenders.MEMORY, "")
    own, target = await layer.new_channel(), await layer.new_channel()

    async def echo() -> None:
        while True:
            message = await layer.receive(target)
            await layer.send(message["reply"], {"type": "answer", "text": message["text"]})

    answering = asyncio.create_task(echo())
    times = []
    for _ in range(plan.round_trips):
        began = time.monotonic()
        await layer.send(target, {"type": "ask", "reply": own, "text": TEXT})
        await layer.receive(own)
        times.append(1e6 * (time.monotonic() - began))
    answering.cancel()
    names = [await layer.new_channel() for _ in range(100)]
    for name in names:
        await layer.group_add("members", name)
    fans = []
    for number in range(plan.group_messages):
        receiving = [asyncio.ensure_future(layer.receive(name)) for name in names]
        await asyncio.sleep(0)
        began = time.monotonic()
        await layer.group_send("members", {"type": "m", "number": number})
        await asyncio.gather(*receiving)
        fans.append(1e3 * (time.monotonic() - began))
    middle = statistics.median(fans)
    return {"round": statistics.median(times), "fan": middle, "rate": 100_000 / middle}


async def _closed(layer: Any) -> None:
    close = getattr(layer, "close", None) or getattr(layer, "close_pools", None)
    with contextlib.suppress(Exception):
        await close()
