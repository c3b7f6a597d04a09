"""When the hub is tried next, and why there is no connection."""

import asyncio
import logging
from collections.abc import Callable

from chansup.backoff import delay

logger = logging.getLogger("chansup.layer")

_FIRST_PAUSE = 0.01  # seconds before the second attempt to connect
_SHORT_PAUSE = 0.1  # at most, while it is likely that a hub comes back soon
_LONGEST_PAUSE = 1.0
_LONG = 5.0  # seconds without a hub before it is worth a warning


class Attempts:
    """The attempts of one event loop, with growing pauses."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        attempt: Callable[[], None],
        address: Callable[[], str],
    ) -> None:
        self._loop = loop
        self._attempt = attempt
        self._address = address
        self._count = 0  # since the hub answered
        self._timer: asyncio.TimerHandle | None = None
        self._lost_at = loop.time()
        self._has_warned = False
        self.problem = ""
        self.refusal = ""  # what came in place of the hub's greeting

    @property
    def is_pausing(self) -> bool:
        """Whether an attempt is to come by itself."""
        return self._timer is not None

    def why_not(self) -> str:
        """Say why there is no connection."""
        address = self._address()
        if self.refusal:
            return f"the channel layer hub at {address} refuses this process: {self.refusal}"
        why = f" ({self.problem})" if self.problem else ""
        return f"no channel layer hub answers at {address}{why}"

    def failed(self, problem: str) -> None:
        """Take notice that an attempt failed, and pause before the next one."""
        self.problem = problem
        self.refusal = ""
        self._pause()

    def lost(self) -> None:
        """Try again after a connection is gone: at once, if it was one."""
        if self._timer is not None:
            return
        if self._count:
            self._pause()
        else:
            self._count = 1
            self._timer = self._loop.call_later(0, self._end_pause)

    def succeeded(self) -> None:
        """Take notice that a hub has answered."""
        self._count = 0
        self.problem = self.refusal = ""
        self._has_warned = False

    def begin_absence(self) -> None:
        """Take notice that from now on there is no hub."""
        self._lost_at = self._loop.time()

    def stop_pausing(self) -> None:
        """Let the next attempt not come by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause(self) -> None:
        self._count += 1
        absent = self._loop.time() - self._lost_at
        longest = _SHORT_PAUSE if absent < _LONG else _LONGEST_PAUSE
        if not self._has_warned and absent > _LONG:
            self._has_warned = True
            logger.warning("chansup: %s; still retrying", self.why_not())
        self._timer = self._loop.call_later(
            delay(self._count, _FIRST_PAUSE, cap=longest), self._end_pause
        )

    def _end_pause(self) -> None:
        self._timer = None
        self._attempt()
