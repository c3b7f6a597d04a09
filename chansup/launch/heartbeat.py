"""Proves, from inside the event loop, that the loop still turns."""

import asyncio

from chansup.launch.child import Child
from chansup.protocol.scoreboard import BEATS, IN_PROGRESS, LOOP_LAG


def start(child: Child, loop: asyncio.AbstractEventLoop) -> None:
    """Beat for as long as the loop runs."""
    cells, traffic = child.cells, child.traffic
    interval = child.launch.heartbeat_interval

    def beat(due: float) -> None:
        now = loop.time()
        cells[LOOP_LAG] = max(0.0, now - due)
        cells[BEATS] += 1
        cells[IN_PROGRESS] = traffic.requests  # here: two stores less per request
        loop.call_at(now + interval, beat, now + interval)

    beat(loop.time())
