"""Moving one WebSocket to another worker by order, to try whether an app survives it."""

import asyncio
from collections.abc import AsyncIterator, Callable

from chansup.errors import ChansupError
from chansup.protocol import roster
from chansup.protocol.status import Event

_BEGIN_TIMEOUT = 5.0  # seconds until the interface process that holds it has answered
_MOVE_TIMEOUT = 120.0  # seconds for the move itself
_MOST = 16  # at a time

_REFUSALS = {
    "alone": (
        "the pool has one worker ready, and a WebSocket needs another one to move to: "
        "`chansup scale POOL=2` adds one"
    ),
    "early": "the WebSocket is not open yet, or moves already: try again",
}
_UNKNOWN = (
    "no interface process of this site holds that WebSocket: the URL leads elsewhere, or a proxy "
    "takes out the header chansup-mark"
)


class SingleMoves:
    """The orders that stand, and what interface processes say of them."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed  # called when the roster is to be told again
        self._waiting: dict[str, asyncio.Queue[str]] = {}  # by mark

    @property
    def marks(self) -> list[str]:
        """The WebSockets that are to move."""
        return list(self._waiting)

    def take(self, said: roster.Moved) -> None:
        """Take what an interface process says of one of them."""
        if said.mark in self._waiting:
            self._waiting[said.mark].put_nowait(said.step)

    async def move(self, mark: str) -> AsyncIterator[Event]:
        """Move the WebSocket whose handshake has `mark`. The last event has its result as `step`.

        Raises ChansupError.
        """
        if not mark or len(mark) > roster.LONGEST_MARK:
            raise ChansupError(f"invalid mark: write 1 to {roster.LONGEST_MARK} characters")
        if mark in self._waiting or len(self._waiting) >= _MOST:
            raise ChansupError("too many WebSockets move by order: wait until they have")
        steps: asyncio.Queue[str] = asyncio.Queue()
        self._waiting[mark] = steps
        try:
            self._changed()
            yield Event("progress", "ordered to move", step="ordered")
            step = await _next(steps, _BEGIN_TIMEOUT, _UNKNOWN)
            if step in _REFUSALS:
                raise ChansupError(_REFUSALS[step])
            if step == "begun":
                step = await _next(steps, _MOVE_TIMEOUT, "the move did not come to an end")
            yield Event("result", f"the move ended: {step}", step=step, outcome="succeeded")
        finally:
            del self._waiting[mark]
            self._changed()


async def _next(steps: "asyncio.Queue[str]", timeout: float, otherwise: str) -> str:
    try:
        return await asyncio.wait_for(steps.get(), timeout)
    except TimeoutError:
        raise ChansupError(otherwise) from None
