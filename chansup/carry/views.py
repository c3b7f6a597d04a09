"""What a connection knows of its app and of its process, and where it stands."""

from enum import Enum
from typing import Any, Protocol

from chansup.carry.arena import Slot
from chansup.carry.handshake import Record


class Phase(Enum):
    """Where a connection stands."""

    HANDSHAKE = "handshake"  # the server has not answered
    PLAIN = "plain"  # nothing of it is kept; it ends with the process
    OPEN = "open"
    REPEATING = "repeating"  # it came from another process; the handshake is repeated
    LEAVING = "leaving"  # it goes to another process as soon as the app has left it
    PARKING = "parking"  # the app has left it; the socket is being closed here
    OVER = "over"


class App(Protocol):
    """The app's stay at the connection."""

    accepted: bool

    def record(self, request: bytes, answer: list[bytes]) -> Record:
        """Return what another process needs to continue."""

    def keep(self, slot: Slot) -> None:
        """Write what the app said about handovers so far into the slot, and what it says later."""

    def keep_no_more(self) -> None:
        """Drop what the app says about handovers from now on."""

    def refusal(self) -> int:
        """Return the close code of an app that has refused a repeated handshake."""

    def lost(self) -> None:
        """Take notice that the client is gone."""


class Host(Protocol):
    """This process, as its connections see it."""

    scratch: "memoryview[int]"

    def take_slot(self) -> Slot | None:
        """Return a free slot, or None."""

    def opened(self, connection: Any) -> None:
        """Offer a connection to the supervisor."""

    def grows(self, connection: Any) -> None:
        """Take notice that it uses more than its first page."""

    def plain(self, connection: Any, reason: str) -> None:
        """Take notice that a connection cannot be carried any more."""

    def parked(self, connection: Any) -> None:
        """Take notice that a connection was left to another process."""

    def ended(self, connection: Any) -> None:
        """Take notice that a connection is gone."""
