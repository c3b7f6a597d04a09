"""Replaces the processes that listen on a socket whose file vanished.

By the ordinary means: what they hold they finish or hand over, and who is connected stays so. Each
pool has one replacement at a time, and pools do not wait for each other. A replacement that takes
long, or fails, does not hold up the next slot.
"""

import asyncio
import re
from collections.abc import Iterator

from chansup.background import BackgroundTasks
from chansup.errors import ChansupError
from chansup.supervisor.logs.repetition import Repetition
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import replace
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Process
from chansup.supervisor.site import Site
from chansup.unix import Presence

_PAUSE = 10.0  # seconds after a replacement that failed
_NUMBER = re.compile(r"\d+")  # each attempt has a socket of another name
_SLOW = 5.0  # seconds after which the next slot of the pool has its turn


class StaleSlots:
    """Those of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._since: dict[Slot, float] = {}  # loop time at which it was first seen
        self._begun: dict[Slot, float] = {}  # loop time at which its replacement began
        self._not_before: dict[Slot, float] = {}  # loop time of the next one
        self._complaints: dict[Slot, Repetition] = {}
        self._vanished: set[Slot] = set()  # whose successor was ended for its own socket
        self._replacing = BackgroundTasks()

    def retry_now(self) -> None:
        """Have what failed tried again at once: something that was in the way may be gone."""
        self._not_before.clear()
        for pool in self._site.pools.values():
            for slot in pool.slots:
                slot.retry_now()

    def look(self) -> None:
        """Begin the replacements that can begin now."""
        now = asyncio.get_running_loop().time()
        found = {slot: self._since.get(slot, now) for slot in self._stale()}
        self._since = found
        for pool in self._site.pools.values():
            self._end_stale_successors(pool)
            under_way = [begun for slot, begun in self._begun.items() if slot.pool is pool]
            if any(now - begun < _SLOW for begun in under_way):
                continue
            for slot in pool.slots:
                if slot in found and self._may_begin(slot, now):
                    self._begin(slot, now)
                    break

    def _may_begin(self, slot: Slot, now: float) -> bool:
        if slot in self._begun or now < self._not_before.get(slot, 0.0):
            return False
        rollout = self._site.rollout
        if rollout is None or not rollout.runs:
            return True
        # A rollout replaces by itself; one that is held up, or leaves the slot alone, does not.
        return now - self._since[slot] >= _SLOW and slot.successor is None

    def _begin(self, slot: Slot, now: float) -> None:
        self._begun[slot] = now
        complaint = self._complaints.setdefault(slot, Repetition())
        if slot not in self._not_before:
            slot.say("listens on a socket whose file vanished, replacing it", level="warning")

        async def work() -> None:
            try:
                await replace(slot, None, "socket")
            except ChansupError as error:
                text = f"cannot replace what listens on a vanished socket: {error}"
                if complaint.filter(_NUMBER.sub("", text)) is not None:
                    self._site.say(text, "error")
                pause = 0.0 if slot in self._vanished else _PAUSE
                self._not_before[slot] = asyncio.get_running_loop().time() + pause
            else:
                self._not_before.pop(slot, None)
                self._complaints.pop(slot, None)
            finally:
                self._vanished.discard(slot)
                del self._begun[slot]

        self._replacing.start(work())

    def _end_stale_successors(self, pool: Pool) -> None:
        """End processes that can never become ready: their socket vanished while they started."""
        for slot in pool.slots:
            process = slot.successor
            if process is None or process.specification.takes_over or not self._is_stale(process):
                continue
            if process.ready.is_set() or process.exit is not None:
                continue
            slot.say("its socket vanished while it started, ending it", process, "warning")
            self._vanished.add(slot)
            process.kill()

    def _stale(self) -> Iterator[Slot]:
        """Yield the slots whose process listens where nobody new can reach it."""
        for pool in self._site.pools.values():
            for slot in pool.slots:
                if slot.current is not None and self._is_stale(slot.current):
                    yield slot

    def _is_stale(self, process: Process) -> bool:
        if process.socket is not None and process.socket.presence() is not Presence.OURS:
            return True
        if process.specification.kind == "hub":
            return self._site.hub.opened > process.started_monotonic
        return self._site.addresses.is_stale(process)
