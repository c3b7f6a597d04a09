"""Runs a channel worker in this process: the app's consumers, fed from the channel layer."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import chansup
from chansup.launch import application, heartbeat, retirement, surroundings
from chansup.launch.child import Child
from chansup.launch.options import OptionProblem
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.launch import ChannelWorker as Orders
from chansup.worker import layers, routes, threads
from chansup.worker.books import Books
from chansup.worker.dead_letters import DeadLetters
from chansup.worker.errors import WorkerConfigError
from chansup.worker.worker import ChannelWorker

PACKAGE = "chansup"
_CUT_RESERVE = 2.0  # seconds of the timeout that are kept for what cannot be finished
_CUT_SHARE = 0.4  # of the timeout, at most
_LAST_WORDS = 3.0  # seconds for the layer to hear what was done, if there are as many


def version() -> str:
    """Return the name and version of the server."""
    return f"chansup {chansup.__version__}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that a channel worker does not take: it has none."""
    return [OptionProblem(name, "channel workers have no options") for name in given]


def serve(child: Child) -> int:
    """Consume until the process is asked to end and nothing is in hand. Return the exit code."""
    orders = child.launch.channel_worker
    assert orders is not None
    surroundings.log_to_stderr()
    loaded = application.load(child.launch.application, "asgi")
    with asyncio.Runner(loop_factory=surroundings.loop_factory()) as runner:
        return runner.run(_serve(child, orders, loaded))


def _worker(child: Child, orders: Orders, loaded: Any) -> ChannelWorker:
    """Return what consumes as it was ordered. Raises WorkerConfigError."""
    pool = child.launch.pool
    prepare_django()
    choice = routes.Choice(orders.channels, orders.only, orders.exclude)
    found = routes.routing(loaded)
    for field, message in routes.problems(found, choice):
        raise WorkerConfigError(f"workers.{pool}.{field}: {message}")
    names = routes.consumed(found, choice)
    source = layers.source_of(layers.find(orders.layer), redeliver=orders.redeliver)
    bulletin = None if orders.bulletin_fd is None else Bulletin(orders.bulletin_fd)
    return ChannelWorker(
        loaded,
        source,
        names,
        Books(bulletin, names, orders.concurrency),
        DeadLetters(orders.dead_letters, pool),
        concurrency=orders.concurrency,
        redeliver=orders.redeliver,
        max_deliveries=orders.max_deliveries,
    )


def prepare_django() -> None:
    """Set Django up, if the app has it and has not done so itself."""
    if "django" not in sys.modules or "DJANGO_SETTINGS_MODULE" not in os.environ:
        return
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()


async def _serve(child: Child, orders: Orders, loaded: Any) -> int:
    loop = asyncio.get_running_loop()
    heartbeat.start(child, loop)
    threads.let_stop_iteration_arrive(loop)
    try:
        worker = _worker(child, orders, loaded)  # layers may want the loop that they are used in
    except WorkerConfigError as error:
        raise application.ConfigurationError(str(error)) from None
    asked = asyncio.Event()
    hurried = asyncio.Event()
    asked_at = 0.0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        asked_at = asked_at or time.monotonic()
        loop.call_soon_threadsafe((hurried if asked.is_set() else asked).set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    worker.start()
    child.ready()
    await asked.wait()
    late = time.monotonic() - asked_at  # a consumer may have kept the loop to itself
    retirement.arm_last_resort(child, late)
    worker.stop()
    child.stopped()
    timeout = max(0.0, child.launch.drain.timeout - late)
    reserve = min(_CUT_RESERVE, timeout * _CUT_SHARE)
    await _first_of(timeout - reserve, worker.empty, hurried)
    was_cut = not worker.empty.is_set() and await worker.cut(reserve / 3)
    left = asked_at + child.launch.drain.timeout - time.monotonic()
    await worker.close(max(reserve / 3, min(_LAST_WORDS, left / 3)))
    if was_cut and threading.active_count() > 1:
        # A consumer's thread cannot be ended: it would go on with what went back to the queue.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


async def _first_of(patience: float, *events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
