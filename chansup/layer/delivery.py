"""One message of an ordinary channel, in the hands of whoever took it."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chansup.layer.link import Link


class Handed:
    """A message as it came from the hub, and what is known of it there."""

    __slots__ = (
        "attempts", "body", "born", "deadline", "epoch", "held", "id", "name", "number", "waited",
    )  # fmt: skip

    def __init__(
        self,
        epoch: str,
        name: bytes,
        id: int,
        number: int,
        deadline: float,
        born: float,
        waited: float,
        attempts: int,
        body: bytes,
    ) -> None:
        self.epoch = epoch  # of the hub that it came from
        self.name = name
        self.id = id
        self.number = number
        self.deadline = deadline
        self.born = born  # by the clock of the hub
        self.waited = waited
        self.attempts = attempts  # that have failed
        self.body = body
        self.held = False  # the hub keeps it until it is told otherwise


class Receipt:
    """What is known of a message that was taken, and how to say what becomes of it.

    Call `done` or `give_back` once; what is called later does nothing. It may be called in any
    thread. In another than that of the event loop, and when the loop does not run, the hub learns
    of it when the loop runs the next time. After the loop or the layer was closed nothing happens:
    a message that was taken with `until_done` is somebody else's by then. In a child that was
    forked nothing happens either: the message is the parent's.
    """

    __slots__ = ("_handed", "_link", "_settled", "attempt", "waited")

    def __init__(self, link: "Link", handed: Handed) -> None:
        self.waited = handed.waited  # seconds in the hub, since it was sent
        self.attempt = handed.attempts + 1  # 1: nobody has failed with it before
        self._link = link
        self._handed = handed
        self._settled = False

    def done(self) -> None:
        """Forget the message: it was dealt with."""
        self._settle(False, False)

    def give_back(self, *, failed: bool = False) -> None:
        """Put the message back to the head of its queue. `failed`: it counts as an attempt."""
        self._settle(True, failed)

    def _settle(self, returned: bool, failed: bool) -> None:
        link = self._link
        if self._settled or link.closed:
            return
        self._settled = True
        try:
            here = asyncio.get_running_loop() is link.loop
        except RuntimeError:
            here = False
        if here:
            link.settle(self._handed, returned, failed)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                link.loop.call_soon_threadsafe(link.settle, self._handed, returned, failed)


class Delivery(Receipt):
    """What `take` returns."""

    __slots__ = ("message",)

    def __init__(self, link: "Link", handed: Handed, message: dict[str, Any]) -> None:
        super().__init__(link, handed)
        self.message = message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, attempt={self.attempt})"
