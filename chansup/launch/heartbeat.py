"""Proves, from inside the event loop, that the loop still turns."""

import asyncio

from chansup.protocol.scoreboard import BEATS, LOOP_LAG


def start(loop: asyncio.AbstractEventLoop, cells: "memoryview[float]", interval: float) -> None:
    """Beat every `interval` seconds for as long as the loop runs."""

    def beat(due: float) -> None:
        now = loop.time()
        cells[LOOP_LAG] = max(0.0, now - due)
        cells[BEATS] += 1
        loop.call_at(now + interval, beat, now + interval)

    beat(loop.time())
