"""Waking those who wait in a coroutine, from a callback."""

import asyncio

Waiter = asyncio.Future[None] | None


def wake(waiter: Waiter) -> None:
    """Let whoever waits for `waiter` go on, if somebody does."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
