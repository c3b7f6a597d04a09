"""One message of an ordinary channel, in the hands of whoever took it."""

from collections.abc import Callable
from typing import Any


class Handed:
    """A message as it came from the hub, with its record there."""

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


Settle = Callable[[Handed, bool, bool], None]  # says whether it goes back, and was failed with


class Receipt:
    """A message that was taken: its wait, its attempts, and how to settle it.

    Call `done` or `give_back` once; later calls do nothing. It may be called in any
    thread. In another than that of the event loop, and when the loop does not run, the hub learns
    of it when the loop runs the next time. After the loop or the layer was closed nothing happens:
    a message that was taken with `until_done` is somebody else's by then. In a child that was
    forked nothing happens either: the message is the parent's.
    """

    __slots__ = ("_handed", "_is_settled", "_settle", "attempt", "waited")

    def __init__(self, handed: Handed, settle: Settle) -> None:
        self.waited = handed.waited  # seconds in the hub, since it was sent
        self.attempt = handed.attempts + 1  # 1: nobody has failed with it before
        self._handed = handed
        self._settle = settle
        self._is_settled = False

    def done(self) -> None:
        """Forget the message: it was dealt with."""
        if not self._is_settled:
            self._is_settled = True
            self._settle(self._handed, False, False)

    def give_back(self, *, failed: bool = False) -> None:
        """Put the message back to the head of its queue. `failed`: it counts as an attempt."""
        if not self._is_settled:
            self._is_settled = True
            self._settle(self._handed, True, failed)


class Delivery(Receipt):
    """What `take` returns."""

    __slots__ = ("message",)

    def __init__(self, handed: Handed, settle: Settle, message: dict[str, Any]) -> None:
        super().__init__(handed, settle)
        self.message = message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, attempt={self.attempt})"
