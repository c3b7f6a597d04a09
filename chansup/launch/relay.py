"""Runs an app worker in this process: the app, behind the relay."""

import asyncio
import sys
from collections.abc import Mapping

import chansup
from chansup.launch import application, departure, heartbeat, surroundings
from chansup.launch.child import Child
from chansup.launch.options import OptionProblem
from chansup.launch.stopping import Stopping
from chansup.launch.warm_up import NotReadyError, WarmUp
from chansup.protocol.launch import AppWorker as Orders
from chansup.protocol.scoreboard import IN_PROGRESS
from chansup.relay.appworker.counters import Counters
from chansup.relay.appworker.lifespan import Lifespan, LifespanFailedError
from chansup.relay.appworker.server import AppWorker
from chansup.relay.greeting import hello

PACKAGE = "chansup"
_LAST_WORDS = 1.5  # the reserve of the timeout, and half of that for apps to leave in good order


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
    except LifespanFailedError as error:
        raise application.StartupError(str(error)) from None
    if launch.ready_request is not None:
        try:
            await WarmUp(loaded, launch.ready_request).ask(lifespan.state)
        except NotReadyError:
            await lifespan.stop()
            raise
    counters = Counters(child.cells, child.in_flight)
    worker = AppWorker(
        loaded,
        counters,
        hello(f"{launch.pool}.{launch.slot}"),
        concurrency=orders.concurrency,
        peers=frozenset(orders.peers),
        state=lifespan.state,
        disconnect_timeout=orders.disconnect_timeout,
        threaded=launch.gateway == "wsgi",
    )
    stopping = Stopping(child, loop)
    worker.listen(child.sockets()[0])
    child.ready()
    await stopping.asked()
    child.stopped()
    worker.drain()
    loop.call_later(stopping.left() - _LAST_WORDS * stopping.reserve, worker.hurry)
    if not await stopping.until(worker.empty) and (tasks := worker.cut()):
        await asyncio.wait(tasks, timeout=stopping.reserve / 2)
    reserve = stopping.reserve / 2
    await worker.orphans.settle(stopping.left() - 2 * reserve, reserve)
    worker.close()
    child.cells[IN_PROGRESS] = child.in_flight.requests
    failure = await lifespan.stop()
    if failure is not None:
        sys.stderr.write(f"chansup: lifespan shutdown failed: {failure}\n")
    if worker.orphans.were_cut and departure.is_held_up():
        departure.leave(0, min(worker.orphans.threads_patience, stopping.left() - reserve))
    return 0
