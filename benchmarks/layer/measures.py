"""What is measured of one channel layer, with other processes at the other end."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.layer import contenders
from benchmarks.layer.others import closed, other

TEXT = "x" * 30  # about 50 bytes with the rest


@dataclass(frozen=True)
class Plan:
    """How much is done, in one round."""

    rounds: int = 3
    round_trips: int = 3000
    group_messages: int = 300
    burst: int = 300  # group messages, as fast as they go
    messages: int = 50_000

    def for_slow_ones(self) -> "Plan":
        """Return the same with fewer messages."""
        return Plan(
            self.rounds,
            max(100, self.round_trips // 3),
            max(30, self.group_messages // 3),
            max(30, self.burst // 3),
            max(500, self.messages // 12),
        )


@dataclass(frozen=True)
class Rate:
    """How many messages per second reached the receiver, and how."""

    per_second: float
    disordered: int  # that came after a later one
    missing: int  # that had not come after a long while


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
    await closed(layer)
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
    await closed(layer)
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99), "rate": rate}


async def throughput(name: str, address: str, plan: Plan, senders: int) -> Rate:
    """Send to one receiver in another process, from one task or several."""
    layer = contenders.make(name, address)
    async with other(name, address, "sink", plan.messages) as sink:
        target = await sink.says()
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await _send_all(layer, target, plan.messages, senders)
        ended = await sink.says()
    await closed(layer)
    received = plan.messages - ended["missing"]
    return Rate(received / (ended["time"] - began), ended["disordered"], ended["missing"])


async def _send_all(layer: Any, target: str, count: int, senders: int) -> None:
    numbers = iter(range(count))

    async def send() -> None:
        for number in numbers:
            await layer.send(target, {"type": "m", "number": number, "text": TEXT})

    await asyncio.gather(*(send() for _ in range(senders)))


# --- in one process: Channels' layer in memory knows no other


async def own_round_trip(plan: Plan) -> dict[str, float]:
    """Send a message to another task, and receive its answer: microseconds."""
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
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99)}


async def own_fan_out(plan: Plan) -> dict[str, float]:
    """Send to a group of 100 tasks, until the last has it: ms, and deliveries/s."""
    layer = contenders.make(contenders.MEMORY, "")
    names = [await layer.new_channel() for _ in range(100)]
    for name in names:
        await layer.group_add("members", name)
    times = []
    for number in range(plan.group_messages):
        receiving = [asyncio.ensure_future(layer.receive(name)) for name in names]
        await asyncio.sleep(0)
        began = time.monotonic()
        await layer.group_send("members", {"type": "m", "number": number})
        await asyncio.gather(*receiving)
        times.append(1e3 * (time.monotonic() - began))

    async def member(name: str) -> None:
        for _ in range(plan.burst):
            await layer.receive(name)

    members = [asyncio.create_task(member(name)) for name in names]
    began = time.monotonic()
    for number in range(plan.burst):
        await layer.group_send("members", {"type": "m", "number": number, "text": TEXT})
    await asyncio.gather(*members)
    rate = 100 * plan.burst / (time.monotonic() - began)
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99), "rate": rate}


async def own_throughput(plan: Plan, senders: int) -> Rate:
    """Send to one other task, from one task or several."""
    layer = contenders.make(contenders.MEMORY, "")
    target = await layer.new_channel()
    disordered = 0

    async def sink() -> None:
        nonlocal disordered
        last = -1
        for _ in range(plan.messages):
            number = (await layer.receive(target))["number"]
            disordered += number < last
            last = max(last, number)

    receiving = asyncio.create_task(sink())
    began = time.monotonic()
    await _send_all(layer, target, plan.messages, senders)
    await receiving
    return Rate(plan.messages / (time.monotonic() - began), disordered, 0)
