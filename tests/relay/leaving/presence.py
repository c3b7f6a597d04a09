"""Counts who waits in an app: each app of these tests serves the number at …/count."""

import asyncio
import atexit
import threading
import time
from collections.abc import AsyncIterator

waiting = 0
_lock = threading.Lock()


def change(by: int) -> None:
    """Count from a thread."""
    global waiting
    with _lock:
        waiting += by


async def news() -> AsyncIterator[str]:
    """Yield an event, and then nothing for hours."""
    global waiting
    waiting += 1
    try:
        yield ": hello\n\n"
        await asyncio.Event().wait()
    finally:
        waiting -= 1


async def ticks() -> AsyncIterator[str]:
    """Yield an event again and again."""
    global waiting
    waiting += 1
    try:
        while True:
            yield ": tick\n\n"
            await asyncio.sleep(0.002)
    finally:
        waiting -= 1


def block() -> None:
    """Hold a thread for hours, and write when the process ends in an orderly way."""
    atexit.register(print, "atexit was called", flush=True)
    change(1)
    time.sleep(10_000)


def count() -> str:
    """Return how many of both there are."""
    return str(waiting)
