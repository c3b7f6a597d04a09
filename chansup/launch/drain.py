"""How a process retires: the same for every server, from SIGTERM to exit.

Every change stands in `TRANSITIONS`. The drain itself is free of I/O and has no clock of its own.
It reads the counters and tells its host the next step, so tests drive it by hand.
"""

import random
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from chansup.launch.in_flight import HeldWebSocket, InFlight
from chansup.launch.listeners import Connections
from chansup.protocol.launch import Drain as Limits

TICK = 0.02  # seconds between two steps
_QUEUE_PATIENCE = 0.1  # seconds: others may fill the queue and empty it, too
_QUIET = 0.05  # seconds without unread bytes, for the server to hand over what it has read
_PATIENCE = 1.0  # seconds past settle that bytes may stay unread: an app may refuse to read them
_END_SHARE = 0.4  # of the timeout, at most _END_RESERVE, is kept for the server's own ending
_END_RESERVE = 2.0  # seconds
_CUT_SHARE = 0.5  # of that reserve may pass between cutting and ending


_LAST_WORDS = 1.5  # the reserve, and half of that for apps to leave in good order


def reserve(limits: Limits) -> float:
    """Return the seconds of the timeout that are kept for ending what did not end by itself."""
    return min(_END_RESERVE, limits.timeout * _END_SHARE)


def last_words_after(limits: Limits) -> float:
    """Return after how many seconds apps leave, whatever they are busy with."""
    return limits.timeout - _LAST_WORDS * reserve(limits)


class Phase(Enum):
    """Where a process stands in its retirement."""

    SERVING = "serving"
    EMPTYING = "emptying"  # says so on the health path, accepts what already waits in the queue
    STOPPING = "stopping"  # accepts no more
    SETTLING = "settling"  # what was accepted arrives
    RELEASING = (
        "releasing"  # WebSockets are closed, requests and idle connections end by themselves
    )
    CUTTING = "cutting"  # time is up: what is left is cancelled
    ENDING = "ending"  # nothing left: lifespan shutdown, exit


class Host(Protocol):
    """What a drain asks of the process it retires."""

    def begin(self) -> None:
        """Close each connection after its next response, where the header does not suffice."""

    def waiting(self) -> bool:
        """Say whether connections wait to be accepted."""

    def stop_accepting(self) -> None:
        """Accept no new connection any more."""

    def stopped(self) -> None:
        """No new connection was accepted for a moment: tell the supervisor."""

    def connections(self) -> Connections:
        """Return the client connections that are open."""

    def cut(self) -> None:
        """Cancel what the app still does."""

    def end(self) -> None:
        """Let the server shut down and the process exit."""


class Drain:
    """One retirement. Call `begin` at SIGTERM, then `step` until it returns None."""

    def __init__(
        self, limits: Limits, in_flight: InFlight, host: Host, clock: Callable[[], float]
    ) -> None:
        self.phase = Phase.SERVING
        self.hurried = False
        self._limits = limits
        self._in_flight = in_flight
        self._host = host
        self._clock = clock
        self._began = 0.0
        self._entered = 0.0  # when the present phase began
        self._close_at: dict[HeldWebSocket, float] = {}
        self._due: list[tuple[float, HeldWebSocket]] = []  # the same, the last one first
        self._look_again = 0.0
        self._inodes: frozenset[int] = frozenset()
        self._unread_at = 0.0  # when bytes were last seen unread
        self._moved_at = 0.0  # when an idle connection may last have become idle
        self._released = 0
        self._cut_after = limits.timeout - reserve(limits)
        self._end_after = limits.timeout - reserve(limits) * _CUT_SHARE

    def begin(self) -> bool:
        """Retire, or hurry when that has begun already. Say whether it has just begun."""
        if self.phase is not Phase.SERVING:
            self.hurried = True
            return False
        now = self._clock()
        self._began = self._moved_at = now
        self._in_flight.draining = True
        self._enter(Phase.EMPTYING, now)
        return True

    def step(self) -> float | None:
        """Do the next steps. Return the seconds until the next step, or None after the last one."""
        now = self._clock()
        if self.phase is Phase.RELEASING and now < self._look_again and not self.hurried:
            self._close_due(now)
            return TICK
        if self.phase in _LOOKING:
            self._look(now)
        for may_leave, following in TRANSITIONS[self.phase]:
            if may_leave(self, now):
                self._enter(following, now)
                break
        if self.phase is Phase.RELEASING:
            self._close_websockets(now)
        if self.phase is Phase.ENDING:
            return None
        # Looking costs time in proportion to the connections: never more than a tenth of it. What
        # is to close keeps its pace meanwhile, or thousands would leave in a few bursts.
        pause = max(TICK, 10 * (self._clock() - now))
        self._look_again = now + pause
        return TICK if self._due else pause

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self._entered = now
        if phase is Phase.EMPTYING:
            self._host.begin()
        elif phase is Phase.STOPPING:
            self._host.stop_accepting()
        elif phase is Phase.SETTLING:
            self._host.stopped()
        elif phase is Phase.CUTTING:
            self._host.cut()
        elif phase is Phase.ENDING:
            self._host.end()

    def _look(self, now: float) -> None:
        connections = self._host.connections()
        if connections.unread:
            self._unread_at = now
        if connections.inodes - self._inodes or self._in_flight.released != self._released:
            self._moved_at = now
        self._inodes = connections.inodes
        self._released = self._in_flight.released

    def _close_websockets(self, now: float) -> None:
        """Close those whose moment has come. Moments are spread evenly, in random order."""
        accepted = [held for held in self._in_flight.websockets if held.accepted]
        fresh = [held for held in accepted if held not in self._close_at]
        if fresh:
            moving: list[HeldWebSocket] = []
            closing: list[HeldWebSocket] = []
            for held in fresh:
                (moving if held.moves else closing).append(held)
            self._spread(moving, len(moving) / self._in_flight.handover_rate, now)
            self._spread(closing, self._limits.spread, now)
        for held in accepted:
            if self.hurried or self._close_at[held] <= now:
                held.close()
        self._close_at = {held: self._close_at[held] for held in accepted}
        self._due = sorted(
            ((moment, held) for held, moment in self._close_at.items() if moment > now),
            key=lambda one: one[0],
            reverse=True,
        )

    def _close_due(self, now: float) -> None:
        """Close those whose moment has come since."""
        while self._due and self._due[-1][0] <= now:
            _, held = self._due.pop()
            if held in self._in_flight.websockets:
                held.close()

    def _spread(self, held: list[HeldWebSocket], seconds: float, now: float) -> None:
        """Give each of them its moment, within so many seconds of the release."""
        if not held:
            return
        random.shuffle(held)
        # All must have gone, and their apps have said goodbye, before time is up.
        until = min(self._entered + seconds, self._began + self._cut_after * 0.8)
        span = max(0.0, until - now) / len(held)
        for place, one in enumerate(held):
            self._close_at[one] = now + (place + random.random()) * span  # noqa: S311

    # The questions of the course.

    def _has_emptied(self, now: float) -> bool:
        return now - self._entered >= _QUEUE_PATIENCE or not self._host.waiting()

    def _accepts_no_more(self, now: float) -> bool:
        return now - self._entered >= TICK  # what the loop had begun to accept has shown up

    def _is_settled(self, now: float) -> bool:
        waited = now - self._entered
        if waited >= self._limits.settle + _PATIENCE:
            return True
        return self._is_quiet(now) and (self.hurried or waited >= self._limits.settle)

    def _is_empty(self, now: float) -> bool:
        if self._in_flight.requests or self._in_flight.websockets or not self._is_quiet(now):
            return False
        return self.hurried or not self._inodes or now - self._moved_at >= self._limits.keep_alive

    def _is_late(self, now: float) -> bool:
        return now - self._began >= self._cut_after

    def _is_cut(self, now: float) -> bool:
        nothing_left = not self._in_flight.requests and not self._in_flight.websockets
        return nothing_left or now - self._began >= self._end_after

    def _is_quiet(self, now: float) -> bool:
        return now - self._unread_at >= _QUIET


_LOOKING = frozenset({Phase.STOPPING, Phase.SETTLING, Phase.RELEASING})

TRANSITIONS: dict[Phase, list[tuple[Callable[[Drain, float], bool], Phase]]] = {
    Phase.SERVING: [],
    Phase.EMPTYING: [(Drain._has_emptied, Phase.STOPPING)],
    Phase.STOPPING: [(Drain._accepts_no_more, Phase.SETTLING)],
    Phase.SETTLING: [(Drain._is_late, Phase.CUTTING), (Drain._is_settled, Phase.RELEASING)],
    Phase.RELEASING: [(Drain._is_empty, Phase.ENDING), (Drain._is_late, Phase.CUTTING)],
    Phase.CUTTING: [(Drain._is_cut, Phase.ENDING)],
    Phase.ENDING: [],
}
