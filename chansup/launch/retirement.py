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

_READINESS_INTERVAL = 0.005  # seconds
_LINGER = 0.3  # seconds after the end that connections have to go before they are shut down
_LAST_RESORT_SHARE = 0.1  # of the timeout before its end, at most _LAST_RESORT
_LAST_RESORT = 0.5  # seconds


class _Host:
    """The process, plus this server's way to end."""

    def __init__(self, child: Child, cut: Callable[[], None], end: Callable[[], None]) -> None:
        self._child = child
        self.cut = cut
        self.end = end

    def stop_accepting(self) -> None:
        self._child.stop_accepting()

    def stopped(self) -> None:
        self._child.stopped()

    def connections(self) -> Connections:
        return self._child.connections()


def when_accepting(child: Child, loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """As soon as the server waits on its listeners, report that it is ready, and heed signals.

    For servers that do not say when they are ready: their epoll sets do.
    """

    def look() -> None:
        if child.listeners.accepting():
            on_loop(child, loop, end)
            child.ready()
        else:
            loop.call_later(_READINESS_INTERVAL, look)

    loop.call_soon(look)


def thread_when_accepting(child: Child) -> None:
    """The same from a thread, for servers without an event loop."""

    def look() -> None:
        while not child.listeners.accepting():
            time.sleep(_READINESS_INTERVAL)
        child.ready()

    threading.Thread(target=look, name="chansup-readiness", daemon=True).start()


def on_loop(
    child: Child, loop: asyncio.AbstractEventLoop, end: Callable[[], None]
) -> Callable[[], None]:
    """Retire by the event loop at SIGTERM or SIGINT; a second one hurries.

    `end` is called in the loop when nothing is left to wait for. Call this in the main thread.
    Return what a signal calls, for servers that have reasons of their own to end.
    """
    host = _Host(child, child.traffic.cut, end)
    drain = Drain(child.launch.drain, child.traffic, host, loop.time)

    def step() -> None:
        delay = drain.step()
        child.cells[IN_PROGRESS] = child.traffic.requests
        if delay is not None:
            loop.call_later(delay, step)
        else:
            loop.call_later(_LINGER, child.listeners.disconnect)

    def begin() -> None:
        if drain.begin():
            _arm_last_resort(child)
            step()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)

    _listen_to_signals(on_signal)
    return begin


def on_thread(child: Child, cut: Callable[[], None], end: Callable[[], None]) -> None:
    """Retire by a thread of its own at SIGTERM or SIGINT: for servers without an event loop.

    `cut` and `end` are called in that thread. Call this in the main thread.
    """
    host = _Host(child, cut, end)
    drain = Drain(child.launch.drain, child.traffic, host, time.monotonic)
    asked = threading.Event()

    def retire() -> None:
        asked.wait()
        drain.begin()
        _arm_last_resort(child)
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
        signal.siginterrupt(number, False)


def _arm_last_resort(child: Child) -> None:
    """Have the process show its stacks and exit 1 just before the supervisor would kill it."""
    timeout = child.launch.drain.timeout
    reserve = min(_LAST_RESORT, timeout * _LAST_RESORT_SHARE)
    faulthandler.dump_traceback_later(max(0.1, timeout - reserve), exit=True)
