"""Connects a drain to this process: to its signals, and to its event loop or a thread."""

import asyncio
import faulthandler
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from chansup.launch.child import Child
from chansup.launch.drain import Drain
from chansup.launch.listeners import Connections
from chansup.protocol.scoreboard import IN_PROGRESS

Action = Callable[[], None]

_READINESS_INTERVAL = 0.005  # seconds
_LINGER = 0.3  # seconds after the end that connections have to go before they are shut down
_LAST_RESORT_SHARE = 0.04  # of the timeout before its end, at most _LAST_RESORT
_LAST_RESORT = 0.5  # seconds


class Retirement:
    """How this server retires: `end` always, the rest where the general way does not suffice."""

    def __init__(
        self,
        child: Child,
        end: Action,
        *,
        begin: Action | None = None,
        stop_accepting: Action | None = None,
        cut: Action | None = None,
    ) -> None:
        self.child = child
        self.end = end  # let the server shut down and the process exit
        self.begin = begin or _nothing  # close each connection after its next response
        self.stop_accepting = stop_accepting or child.listeners.stop_accepting
        self.cut = cut or child.in_flight.cut

    def waiting(self) -> bool:
        """Say whether connections wait to be accepted."""
        return self.child.listeners.waiting()

    def stopped(self) -> None:
        """Tell the supervisor that no new connection is accepted."""
        self.child.stopped()

    def connections(self) -> Connections:
        """Return the client connections that are open."""
        return self.child.listeners.connections()


def _nothing() -> None:
    pass


def when_accepting(retirement: Retirement, loop: asyncio.AbstractEventLoop) -> None:
    """As soon as the server waits on its listeners, report that it is ready, and heed signals.

    For servers that do not say when they are ready: their epoll sets do.
    """
    child = retirement.child

    def look() -> None:
        if child.listeners.accepting():
            on_loop(retirement, loop)
            child.ready()
        else:
            loop.call_later(_READINESS_INTERVAL, look)

    loop.call_soon(look)


def thread_when_accepting(child: Child) -> None:
    """Report that it is ready from a thread, for servers without an event loop."""

    def look() -> None:
        while not child.listeners.accepting():
            time.sleep(_READINESS_INTERVAL)
        child.ready()

    threading.Thread(target=look, name="chansup-readiness", daemon=True).start()


def on_loop(retirement: Retirement, loop: asyncio.AbstractEventLoop) -> Action:
    """Retire by the event loop at SIGTERM or SIGINT; a second one hurries.

    Call this in the main thread. Return what a signal calls, for servers that have reasons of
    their own to end.
    """
    child = retirement.child
    drain = Drain(child.launch.drain, child.in_flight, retirement, loop.time)

    def step() -> None:
        delay = drain.step()
        child.cells[IN_PROGRESS] = child.in_flight.requests
        if delay is not None:
            loop.call_later(delay, step)
        else:
            loop.call_later(_LINGER, child.listeners.disconnect)

    def begin() -> None:
        if drain.begin():
            arm_last_resort(child)
            step()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)

    _listen_to_signals(on_signal)
    return begin


def on_thread(retirement: Retirement) -> None:
    """Retire by a thread of its own at SIGTERM or SIGINT: for servers without an event loop.

    What `retirement` does is done in that thread. Call this in the main thread.
    """
    child = retirement.child
    drain = Drain(child.launch.drain, child.in_flight, retirement, time.monotonic)
    asked = threading.Event()

    def retire() -> None:
        asked.wait()
        drain.begin()
        arm_last_resort(child)
        while (delay := drain.step()) is not None:
            time.sleep(delay)
        time.sleep(_LINGER)
        child.listeners.disconnect()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            drain.hurried = True
        asked.set()

    threading.Thread(target=retire, name="chansup-drain", daemon=True).start()
    _listen_to_signals(on_signal)


def _listen_to_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    # Not loop.add_signal_handler: a handler of the interpreter runs even where the loop is blocked.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def arm_last_resort(child: Child, late: float = 0.0) -> None:
    """Have the process show its stacks and exit 1 just before the supervisor would kill it.

    `late`: seconds since it was asked to end.
    """
    timeout = child.launch.drain.timeout
    reserve = min(_LAST_RESORT, timeout * _LAST_RESORT_SHARE)
    faulthandler.dump_traceback_later(max(0.1, timeout - reserve - late), exit=True)
