"""For consumers of Django Channels: a checkpoint that survives a handover, in two lines.

    class Counter(HandoverMixin, AsyncJsonWebsocketConsumer):
        async def connect(self):
            self.count = int(self.handover["checkpoint"] or 0)
            await self.accept()

        async def receive_json(self, content):
            self.count += 1
            await self.store_checkpoint(str(self.count))

A consumer with a session that no checkpoint holds says `handover_policy = "close"`: it is closed
with 1012 where others are moved, and its client comes back. `set_handover_policy` says so later, or
takes it back. "transparent" moves it although its protocol is known to have a session.

Works for asynchronous consumers (await the methods) and for synchronous ones (call them).
Without relay mode there is no handover: `handover["count"]` is 0, and orders are dropped.
"""

from collections.abc import Awaitable, Generator
from typing import Any

from chansup.handover.extension import CHECKPOINT, EXTENSION, POLICY
from chansup.protocol.sessions import HEADER, Handover


class HandoverMixin:
    """Put it before the consumer's base class."""

    scope: dict[str, Any]
    base_send: Any
    handover_policy: Handover | None = None  # None: what the config and the protocol say

    @property
    def handover(self) -> dict[str, Any]:
        """The handovers so far: "count", "reason" ("deploy", "crash"), "checkpoint"."""
        nothing = {"count": 0, "reason": None, "checkpoint": None}
        found: dict[str, Any] = (self.scope.get("extensions") or {}).get(EXTENSION, nothing)
        return found

    def accept(self, subprotocol: str | None = None, headers: Any = None) -> Any:
        """Accept the WebSocket as the consumer does, with what `handover_policy` says."""
        if self.handover_policy is not None and EXTENSION in (self.scope.get("extensions") or {}):
            headers = [*(headers or ()), (HEADER, self.handover_policy.encode())]
        if headers is None:  # Channels before 4.1 takes none
            return super().accept(subprotocol)  # type: ignore[misc]
        return super().accept(subprotocol, headers)  # type: ignore[misc]

    def store_checkpoint(self, checkpoint: bytes | str) -> Awaitable[None] | None:
        """Store up to 16 KiB that the next worker's consumer gets back; the newest counts."""
        return self._tell({"type": CHECKPOINT, "checkpoint": checkpoint})

    def set_handover_policy(self, policy: Handover) -> Awaitable[None] | None:
        """Say from now on: "close" instead of a move, or "transparent"."""
        return self._tell({"type": POLICY, "handover": policy})

    def _tell(self, event: dict[str, Any]) -> Awaitable[None] | None:
        if EXTENSION in (self.scope.get("extensions") or {}):
            sent: Awaitable[None] | None = self.base_send(event)
            return sent
        return _NOTHING


class _Nothing:
    """May be awaited where there is nothing to do, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTHING = _Nothing()
