"""Runs an app worker in this process: the app, behind the relay."""

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType

import chansup
from chansup.launch import application, heartbeat, retirement, surroundings
from chansup.launch.child import Child
from chansup.launch.options import OptionProblem
from chansup.protocol.launch import AppWorker as Orders
from chansup.protocol.scoreboard import IN_PROGRESS
from chansup.relay.appworker.books import Books
from chansup.relay.appworker.lifespan import Lifespan, LifespanFailed
from chansup.relay.appworker.server import AppWorker
from chansup.relay.frames import PROTOCOL
from chansup.relay.scopes import Hello

PACKAGE = "chansup"
_CUT_RESERVE = 2.0  # seconds of the timeout that are kept for cancelling and lifespan shutdown
_CUT_SHARE = 0.4  # of the timeout, at most


def version() -> str:
    """Return the name and version of the server."""
    return f"chansup {chansup.__version__}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that the relay does not take: it has none."""
    return [OptionProblem(name, "the relay has no options") for name in given]


def serve(child: Child) -> int:
    """Run the app until the process is asked to end and nothing is left. Return the exit code."""
    orders = child.launch.app_worker
    assert orders is not None
    surroundings.log_to_stderr()
    loaded = application.load_for_worker(child.launch, orders.threads)
    with asyncio.Runner(loop_factory=surroundings.loop_factory()) as runner:
        return runner.run(_serve(child, orders, loaded))


async def _serve(child: Child, orders: Orders, loaded: object) -> int:
    loop = asyncio.get_running_loop()
    launch = child.launch
    heartbeat.start(child, loop)
    lifespan = Lifespan(loaded)
    try:
        await lifespan.start()
    except LifespanFailed as error:
        raise application.StartupError(str(error)) from None
    books = Books(child.cells, child.traffic)
    worker = AppWorker(
        loaded,
        books,
        Hello(PROTOCOL, chansup.__version__, f"{launch.pool}.{launch.slot}"),
        concurrency=orders.concurrency,
        peers=frozenset(orders.peers),
        state=lifespan.state,
    )
    asked = asyncio.Event()
    hurried = asyncio.Event()

    asked_at = 0.0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        asked_at = asked_at or time.monotonic()
        loop.call_soon_threadsafe((hurried if asked.is_set() else asked).set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    worker.listen(child.sockets()[0])
    child.ready()
    await asked.wait()
    late = time.monotonic() - asked_at  # the app may have kept the loop to itself
    retirement.arm_last_resort(child, late)
    child.stopped()
    worker.drain()
    timeout = max(0.0, launch.drain.timeout - late)
    await _first_of(timeout - min(_CUT_RESERVE, timeout * _CUT_SHARE), worker.empty, hurried)
    if not worker.empty.is_set():
        tasks = worker.cut()
        if tasks:
            await asyncio.wait(tasks, timeout=min(_CUT_RESERVE, timeout * _CUT_SHARE) / 2)
    worker.close()
    child.cells[IN_PROGRESS] = child.traffic.requests
    failure = await lifespan.stop()
    if failure is not None:
        sys.stderr.write(f"chansup: lifespan shutdown failed: {failure}\n")
    return 0


async def _first_of(patience: float, *events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
