"""For consumers of Django Channels: a checkpoint that survives a handover, in two lines.

    class Counter(HandoverMixin, AsyncJsonWebsocketConsumer):
        async def connect(self):
            self.count = int(self.handover["checkpoint"] or 0)
            await self.accept()

        async def receive_json(self, content):
            self.count += 1
            await self.store_checkpoint(str(self.count))

Works for asynchronous consumers (await `store_checkpoint`) and for synchronous ones (call it).
Without relay mode there is no handover: `handover["count"]` is 0 and checkpoints are dropped.
"""

from collections.abc import Awaitable, Generator
from typing import Any

from chansup.relay.extension import CHECKPOINT, EXTENSION


class HandoverMixin:
    """Put it before the consumer's base class."""

    scope: dict[str, Any]
    base_send: Any

    @property
    def handover(self) -> dict[str, Any]:
        """What is known of handovers: "count", "reason" ("deploy", "crash"), "checkpoint"."""
        nothing = {"count": 0, "reason": None, "checkpoint": None}
        found: dict[str, Any] = (self.scope.get("extensions") or {}).get(EXTENSION, nothing)
        return found

    def store_checkpoint(self, checkpoint: bytes | str) -> Awaitable[None] | None:
        """Store up to 16 KiB that the next worker's consumer gets back; the newest counts."""
        if EXTENSION in (self.scope.get("extensions") or {}):
            sent: Awaitable[None] | None = self.base_send(
                {"type": CHECKPOINT, "checkpoint": checkpoint}
            )
            return sent
        return _NOTHING


class _Nothing:
    """May be awaited where there is nothing to do, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTHING = _Nothing()
