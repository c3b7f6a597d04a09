"""Apps whose client has left: how long they may continue, and what they hold meanwhile.

As soon as the client is gone an app gives its permit back, and the interface forgets it: neither a
later request nor a drain waits for it. It may continue for `timeout` seconds, then it is cancelled.
One that has sent its whole response, though nobody got it, does work of its own: it is left alone.
A drain shortens this to a moment, but not for one that has something in hand: a deploy cuts off
nothing that would be finished without it.
"""

import asyncio
import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any, Protocol

_GRACE = 3.0  # seconds that apps have in a process that drains, if they have nothing in hand
_LINE_INTERVAL = 60.0  # seconds between two lines in the log

_log = logging.getLogger("chansup.relay")


class Orphan(Protocol):
    """An app that works on a stream whose client is gone."""

    task: asyncio.Task[None] | None

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """What the app was called with."""

    @property
    def is_finishing(self) -> bool:
        """Whether it does work that no client has to wait for."""

    @property
    def has_in_hand(self) -> bool:
        """Whether it deals with something that may change more than what its client sees."""

    def let_go(self) -> None:
        """Give back what it holds."""


class Orphans:
    """All of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, places: int) -> None:
        """`places`: how many may continue without a permit; more of them keep theirs."""
        self._loop = loop
        self._timeout = timeout
        self._places = places
        self._deadlines: dict[Orphan, asyncio.TimerHandle] = {}
        self._placed: set[Orphan] = set()
        self._with_permit: dict[Orphan, None] = {}  # in the order in which they came
        self._cancelled: set[Orphan] = set()  # that have not returned: perhaps a thread continues
        self._changed = asyncio.Event()  # one has returned, or was cancelled
        self._draining = False
        self._quiet_until = 0.0
        self._untold = 0  # were cancelled since the last line
        self.were_cut = False  # some were cancelled: perhaps threads of theirs continue
        self._cut_in_drain = False

    def adopt(self, app: Orphan, *, holds_permit: bool) -> None:
        """Take in an app whose client is gone."""
        hastens = self._draining and not app.has_in_hand
        timeout = min(self._timeout, _GRACE) if hastens else self._timeout
        self._deadlines[app] = self._loop.call_later(timeout, self._cancel, app)
        if not holds_permit or self._draining:
            app.let_go()
        elif self._places > len(self._placed):
            self._placed.add(app)
            app.let_go()
        else:
            self._with_permit[app] = None

    def ended(self, app: Orphan) -> None:
        """Take notice that an app has returned."""
        deadline = self._deadlines.pop(app, None)
        if deadline is None:
            return
        deadline.cancel()
        self._cancelled.discard(app)
        self._changed.set()
        self._with_permit.pop(app, None)
        if app in self._placed:
            self._placed.discard(app)
            if self._with_permit:
                eldest = next(iter(self._with_permit))
                del self._with_permit[eldest]
                self._placed.add(eldest)
                eldest.let_go()

    def drain(self) -> None:
        """Hold the drain up no longer than a moment: the process is to end."""
        self._draining = True
        waiting, self._with_permit = self._with_permit, {}
        for app in waiting:
            app.let_go()
        latest = self._loop.time() + _GRACE
        for app, deadline in self._deadlines.items():
            if deadline.when() > latest and not app.has_in_hand:
                deadline.cancel()
                self._deadlines[app] = self._loop.call_at(latest, self._cancel, app)

    async def settle(self, patience: float, reserve: float) -> None:
        """Wait until all have returned or were cancelled, for `patience` seconds.

        Then the rest are cancelled. They have `reserve` seconds for their last words.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, patience)):
                while len(self._cancelled) < len(self._deadlines):
                    self._changed.clear()
                    await self._changed.wait()
        for app in list(self._deadlines):
            if app not in self._cancelled:
                self._cut(app)
        tasks = [app.task for app in self._deadlines if app.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=reserve)

    @property
    def threads_patience(self) -> float:
        """How many seconds threads still have that may be theirs: an app may have its own."""
        return 0.0 if self._cut_in_drain else _GRACE

    def _cancel(self, app: Orphan) -> None:
        if not app.is_finishing:
            if not self._draining:
                self._tell(app)
            self._cut(app)

    def _cut(self, app: Orphan) -> None:
        self.were_cut = True
        self._cut_in_drain = self._cut_in_drain or self._draining
        self._cancelled.add(app)
        self._changed.set()
        if app.task is not None:
            app.task.cancel("the client is gone")

    def _tell(self, app: Orphan) -> None:
        self._untold += 1
        now = self._loop.time()
        if now >= self._quiet_until:
            others = self._untold - 1
            _log.warning(
                "%s %r: its client left %g s ago and the app continues: it is cancelled%s. "
                "disconnect_timeout is how long it may",
                app.scope.get("method", "WebSocket"),
                app.scope.get("path"),
                self._timeout,
                f", as {others} others were before" if others else "",
            )
            self._untold = 0
            self._quiet_until = now + _LINE_INTERVAL
