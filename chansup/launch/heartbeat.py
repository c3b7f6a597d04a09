"""Proves, from inside the event loop, that the loop still turns."""

import asyncio
import threading
import time

from chansup.launch import descriptors
from chansup.launch.child import Child
from chansup.protocol.scoreboard import BEATS, IN_PROGRESS, LOOP_LAG


def start(child: Child, loop: asyncio.AbstractEventLoop) -> None:
    """Beat for as long as the loop runs. To be called inside the loop, before it serves."""
    child.on_loop()
    cells, in_flight = child.cells, child.in_flight
    interval = child.launch.heartbeat_interval
    descriptors.report_once(loop)

    def beat(due: float) -> None:
        now = loop.time()
        cells[LOOP_LAG] = max(0.0, now - due)
        cells[BEATS] += 1
        cells[IN_PROGRESS] = in_flight.requests  # here: two stores less per request
        descriptors.look(cells)
        loop.call_at(now + interval, beat, now + interval)

    beat(loop.time())


def start_thread(child: Child) -> None:
    """Beat from a thread of its own, where the server has no loop: the interpreter still runs."""

    def run() -> None:
        while True:
            beat(child)
            time.sleep(child.launch.heartbeat_interval)

    threading.Thread(target=run, name="chansup-heartbeat", daemon=True).start()


def beat(child: Child) -> None:
    """Beat once, for servers that have a main loop of their own."""
    child.cells[BEATS] += 1
    descriptors.look(child.cells)
