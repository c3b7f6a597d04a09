"""Runs a channel worker in this process: the app's consumers, fed from the channel layer."""

import asyncio
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

import chansup
from chansup.launch import application, heartbeat, surroundings
from chansup.launch.child import Child
from chansup.launch.options import OptionProblem
from chansup.launch.stopping import Stopping
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.launch import ChannelWorker as Orders
from chansup.worker import layers, routes, threads
from chansup.worker.counters import Counters
from chansup.worker.dead_letters import DeadLetters
from chansup.worker.errors import WorkerConfigError
from chansup.worker.worker import ChannelWorker

PACKAGE = "chansup"
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
        Counters(bulletin, names),
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
    stopping = Stopping(child, loop)
    worker.start()
    child.ready()
    await stopping.asked()
    worker.stop()
    child.stopped()
    was_cut = not await stopping.until(worker.empty) and await worker.cut(stopping.reserve / 3)
    await worker.close(max(stopping.reserve / 3, min(_LAST_WORDS, stopping.left() / 3)))
    if was_cut and threading.active_count() > 1:
        # A consumer's thread cannot be ended: it would continue with what went back to the queue.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0
