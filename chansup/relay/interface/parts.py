"""Bodies and headers larger than a frame, in parts, of one request's response."""

from chansup.relay import scopes
from chansup.relay.frames import MAX_PAYLOAD, FrameError, Kind


class Parts:
    """What came so far of one event."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[tuple[int, bytes]] = []  # kinds and payloads

    def gather(self, kind: int, payload: bytes) -> None:
        """Keep a part that is not the last one. Raises FrameError."""
        if kind not in (Kind.START, Kind.EVENT):
            raise FrameError(f"a frame of kind {kind} in parts")
        self._parts.append((kind, payload))
        if len(self._parts) * MAX_PAYLOAD > scopes.MAX_EVENT:
            raise FrameError("an event that is too large")

    def completed(self, kind: int, payload: bytes) -> bytes:
        """Return the whole of it, with its last part. Raises FrameError."""
        parts = [*self._parts, (kind, payload)]
        if any(one != kind for one, _ in parts):
            raise FrameError("parts of different kinds")
        return b"".join(part for _, part in parts)
