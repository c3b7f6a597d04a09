"""The other process: ``python -m benchmarks.layer.member NAME ADDRESS JOB [NUMBER…]``.

It prints one JSON value per line, and reads some. Times are of the monotonic clock, which
processes share.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from benchmarks.layer import contenders

SILENCE = 5.0  # seconds after which nothing more comes
FULL_PAUSE = 0.002  # seconds before a channel that was full is tried again


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def told() -> AsyncIterator[Any]:
    """Yield the lines of stdin."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(queue.put_nowait, json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield await queue.get()


async def echo(layer: Any) -> None:
    """Answer each message on the channel that it names."""
    name = await layer.new_channel()
    say(name)
    while True:
        message = await layer.receive(name)
        await layer.send(message["reply"], {"type": "answer", "text": message["text"]})


async def sink(layer: Any, total: int) -> None:
    """Receive so many messages, and say when the last one came, and how."""
    name = await layer.new_channel()
    say(name)
    received = disordered = 0
    last, ended = -1, time.monotonic()
    watched = asyncio.create_task(_silence(lambda: received))
    receiving = asyncio.ensure_future(layer.receive(name))
    while received < total:
        if not receiving.done():
            await asyncio.wait([receiving, watched], return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            break  # the rest is lost
        number = receiving.result()["number"]
        received += 1
        disordered += number < last
        last, ended = max(last, number), time.monotonic()
        if received < total:
            receiving = asyncio.ensure_future(layer.receive(name))
    say({"time": ended, "disordered": disordered, "missing": total - received})


async def members(layer: Any, count: int) -> None:
    """Be so many members of a group; say when all have a message, after each that asks for it."""
    missing: dict[int, int] = {}

    async def member(name: str) -> None:
        while True:
            message = await layer.receive(name)
            number = message["number"]
            left = missing.get(number, count) - 1
            missing[number] = left
            if not left:
                del missing[number]
                if message["tell"]:
                    say(time.monotonic())

    began = time.monotonic()
    names = []
    for _ in range(count):
        name = await layer.new_channel()
        await layer.group_add("members", name)
        names.append(name)
    took = time.monotonic() - began
    tasks = [asyncio.create_task(member(name)) for name in names]
    await asyncio.sleep(0.2)
    say(took)
    await asyncio.gather(*tasks)


async def groups(layer: Any, count: int, channels: int) -> None:
    """Be in so many groups, with so many channels; discard all when told so."""
    names = [await layer.new_channel() for _ in range(channels)]

    async def each(method: Any) -> float:
        began = time.monotonic()
        places = iter(range(count))

        async def some() -> None:
            for place in places:
                await method(f"group-{place}", names[place % channels])

        await asyncio.gather(*(some() for _ in range(20)))
        return time.monotonic() - began

    async def listen(name: str) -> None:
        while True:
            await layer.receive(name)
            say(time.monotonic())

    say("ready")
    listening = []
    async for order in told():
        if order == "add":
            say(await each(layer.group_add))
            listening = [asyncio.create_task(listen(name)) for name in names]
        else:
            for task in listening:
                task.cancel()
            await asyncio.sleep(0)
            say(await each(layer.group_discard))


async def _silence(count: Any) -> None:
    """Return when a count has not changed for a while."""
    before = -1
    while before != count() or not before:
        before = count()
        await asyncio.sleep(SILENCE)


# --- volume


async def verify(layer: Any, channels: int, own: int) -> None:
    """Receive from named channels and own ones; say what came, what is missing, what came twice.

    Each sender numbers what it sends to each channel: the next one is always one more.
    """
    names = [f"volume-{own}-{place}" for place in range(channels)]
    names += [await layer.new_channel() for _ in range(channels)]
    counts = {"received": 0, "twice": 0, "disordered": 0}
    expected: dict[tuple[str, int], int] = {}
    gaps: dict[tuple[str, int], set[int]] = {}

    async def receive(name: str) -> None:
        while True:
            message = await layer.receive(name)
            key, number = (name, message["sender"]), message["number"]
            counts["received"] += 1
            wanted = expected.get(key, 0)
            if number == wanted:
                expected[key] = wanted + 1
            elif number > wanted:
                gaps.setdefault(key, set()).update(range(wanted, number))
                expected[key] = number + 1
            elif number in gaps.get(key, ()):
                gaps[key].remove(number)
                counts["disordered"] += 1
            else:
                counts["twice"] += 1

    tasks = [asyncio.create_task(receive(name)) for name in names]
    say(names)
    async for _ in told():
        totals: dict[str, int] = {}
        for (name, _sender), count in expected.items():
            totals[name] = totals.get(name, 0) + count
        missing = sum(map(len, gaps.values()))
        say({**counts, "missing": missing, "per channel": totals, "failed": _failed(tasks)})


def _failed(tasks: list[asyncio.Task[None]]) -> list[str]:
    return [repr(task.exception()) for task in tasks if task.done()]


async def pour(layer: Any, number: int, each: int) -> None:
    """Send so many numbered messages to each of the channels that stdin names."""
    from channels.exceptions import ChannelFull

    full = 0
    text = "x" * 30

    async def send(name: str) -> None:
        nonlocal full
        for place in range(each):
            message = {"type": "m", "sender": number, "number": place, "text": text}
            while True:
                try:
                    await layer.send(name, message)
                    break
                except ChannelFull:
                    full += 1
                    await asyncio.sleep(FULL_PAUSE)

    say("ready")
    async for names in told():
        began = time.monotonic()
        await asyncio.gather(*(send(name) for name in names))
        say({"took": time.monotonic() - began, "full": full})


async def main() -> None:
    name, address, job, *numbers = sys.argv[1:]
    capacity = 2_000 if job in ("verify", "pour") else contenders.CAPACITY
    layer = contenders.make(name, address, capacity)
    jobs: dict[str, Any] = {
        "echo": echo,
        "sink": sink,
        "members": members,
        "groups": groups,
        "verify": verify,
        "pour": pour,
    }
    await jobs[job](layer, *map(int, numbers))


if __name__ == "__main__":
    uvloop.run(main())
