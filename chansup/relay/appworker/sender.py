"""Sends what counts on one stream: one task after the other, as far as the client keeps up."""

from collections.abc import Callable

from chansup.handover.errors import UnexpectedEvent
from chansup.relay.appworker.context import StreamContext
from chansup.relay.credits import Window
from chansup.relay.frames import END, FrameError, Kind, pack, pieces, split
from chansup.waiters import Turns, Waiter, wake

Check = Callable[[], None]  # raises if nothing may be sent any more


class Sender:
    """The turns and the window of one stream. Made when something has to wait, or may have to."""

    __slots__ = ("_credited", "_link", "_loop", "_parts", "_stream", "_torn", "turns", "window")

    def __init__(self, context: StreamContext, stream: int) -> None:
        self._link = context.link
        self._loop = context.loop
        self._stream = stream
        self._parts = 0  # of a body
        self._torn = False  # a body of which something is missing
        self._credited: Waiter = None  # who has the turn
        self.turns = Turns()
        self.window = Window(context.budget)

    def credit(self, size: int) -> None:
        """Take notice that the client had `size` bytes. Raises FrameError."""
        if not self.window.consumed(size):
            raise FrameError("credit for what was never sent")
        wake(self._credited)

    def end(self) -> None:
        """Give back the window: nothing more is sent."""
        self.window.close()
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look whether something may still be sent."""
        wake(self._credited)

    async def ready(self, check: Check) -> None:
        """Wait, in one's turn, until one more frame may leave."""
        link = self._link
        while not self.window.is_open:
            link.send_control(pack(Kind.EXHAUSTED, 0, 0, 1))
            self._credited = self._loop.create_future()
            await self._credited
            check()
        while link.crowded:
            await link.room()
        check()

    async def send_body(self, body: bytes, more: bool, check: Check) -> None:
        """Send a part of a body."""
        link, window = self._link, self.window
        await self.turns.take(self._loop)
        in_the_middle = False
        try:
            check()
            if self._torn:
                raise UnexpectedEvent("a part of the body is missing: its send() was cancelled")
            for piece, is_last in pieces(body):
                if not piece and more:
                    return
                if not window.is_open or link.crowded:
                    await self.ready(check)
                window.sent(len(piece))
                self._parts += 1
                ends = END if is_last and not more else 0
                link.send(pack(Kind.BODY, ends, self._stream, self._parts, piece))
                in_the_middle = not is_last
        finally:
            self._torn = self._torn or in_the_middle
            self.turns.give()

    async def send_event(self, payload: bytes, check: Check) -> None:
        """Send an event of an extension, in one go: it counts as a part of a body does."""
        await self.turns.take(self._loop)
        try:
            check()
            await self.ready(check)
            self.window.sent(len(payload))
            for frame in split(Kind.EVENT, 0, self._stream, 0, payload):
                self._link.send(frame)
        finally:
            self.turns.give()
