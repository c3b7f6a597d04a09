"""The other process: ``python -m benchmarks.layer.member NAME ADDRESS JOB [NUMBER]``.

It prints one JSON value per line. Times are of the monotonic clock, which processes share.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from benchmarks.layer import contenders


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def echo(layer: Any) -> None:
    """Answer each message on the channel that it names."""
    name = await layer.new_channel()
    say(name)
    while True:
        message = await layer.receive(name)
        await layer.send(message["reply"], {"type": "answer", "text": message["text"]})


async def sink(layer: Any, total: int) -> None:
    """Receive so many messages, and say when the last one came."""
    name = await layer.new_channel()
    say(name)
    for number in range(total):
        message = await layer.receive(name)
        if message["number"] != number:
            say(f"message {message['number']} instead of {number}")
            return
    say(time.monotonic())


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

    tasks = []
    for _ in range(count):
        name = await layer.new_channel()
        await layer.group_add("members", name)
        tasks.append(asyncio.create_task(member(name)))
    await asyncio.sleep(0.2)
    say("ready")
    await asyncio.gather(*tasks)


async def main() -> None:
    name, address, job, *numbers = sys.argv[1:]
    layer = contenders.make(name, address)
    jobs: dict[str, Any] = {"echo": echo, "sink": sink, "members": members}
    await jobs[job](layer, *map(int, numbers))


if __name__ == "__main__":
    uvloop.run(main())
