"""What the stay of a WebSocket knows of its process, and how it came there."""

from typing import Any, Protocol

import msgspec

from chansup.carry.connection import Connection as Carried


class Books(Protocol):
    """Where the WebSockets of this process are counted, as its drain sees them."""

    @property
    def is_cut(self) -> bool:
        """Whether time is up, and apps are cancelled."""

    def came(self, stay: Any) -> None:
        """Take in a WebSocket whose handshake has begun."""

    def accepted(self, is_new: bool) -> None:
        """Count a WebSocket that is open here from now on; `is_new`: for its client, too."""

    def went(self, stay: Any, accepted: bool, code: int, moved: bool) -> None:
        """Count how a WebSocket ended; `moved`: it did not, it left for another process."""


class StayHost(Protocol):
    """This process, as the stays in it see it."""

    books: Books

    def new_id(self) -> str:
        """Return an id for a WebSocket, of no other one on this machine."""

    def moves(self, stay: Any) -> bool:
        """Whether another process may continue with it, by all rules, as things are now."""

    def settled(self, connection: Carried) -> None:
        """Take notice that the app has dealt with a message that was given again."""

    @property
    def hurries(self) -> bool:
        """Whether the drain's time is nearly up."""


class Arrival(msgspec.Struct, frozen=True):
    """How a WebSocket came to this process from another one."""

    reason: str
    count: int
    checkpoint: bytes | None
    word: int
    is_again: bool  # its first message is given a second time
