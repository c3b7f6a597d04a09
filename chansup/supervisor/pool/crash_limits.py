"""`max_restarts`: how many crashes within how long end the supervisor, or are told."""

import time
from collections import deque
from collections.abc import Callable

from chansup.supervisor.pool.slot import Slot


class CrashLimits:
    """Those of the pools of a site, and the crashes of late."""

    def __init__(self, complain: Callable[[str], None], on_fatal: Callable[[str], None]) -> None:
        """`complain` logs that there are too many, `on_fatal` ends the supervisor for it."""
        self._complain = complain
        self._on_fatal = on_fatal
        self._crashes: dict[str, deque[float]] = {}  # by pool, monotonic

    def crashed(self, slot: Slot) -> None:
        """Take notice of a crash: too many may end the supervisor."""
        settings = slot.pool.specification.settings
        if settings.max_restarts is None:
            return
        crashes = self._crashes.setdefault(slot.pool.name, deque())
        now = time.monotonic()
        crashes.append(now)
        while crashes and now - crashes[0] > settings.restart_window:
            crashes.popleft()
        if len(crashes) > settings.max_restarts:
            excess = (
                f"{slot.pool.name}: {len(crashes)} crashes within {settings.restart_window:g} s,"
                f" more than max_restarts = {settings.max_restarts}"
            )
            if settings.on_max_restarts == "exit":
                self._on_fatal(excess)
            else:
                self._complain(f"{excess}; trying on")

    def gave_up(self, slot: Slot) -> None:
        """Take notice of a slot that cannot work before the config changes."""
        if slot.pool.specification.settings.on_max_restarts == "exit":
            self._on_fatal(f"{slot.name} cannot work with this config")
