"""How a WebSocket stands in this worker: who is gone, and what its app has in hand."""

from chansup.handover.errors import ClientDisconnected
from chansup.protocol.connection import Connection


class Standing:
    """What all that deals with one WebSocket has to know of it."""

    __slots__ = (
        "closed", "code", "connection", "for_good", "goodbye", "in_hand", "leaving", "left_with",
        "let_go", "returned",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self.connection = connection  # as the channel layer knows it
        self.in_hand = 0  # number of the client's message that the app deals with
        self.left_with: int | None = None  # code with which the client left
        self.code = 0  # close code, as soon as it is known
        self.closed = False  # by the app
        self.leaving = False  # the app is to leave, as another worker continues
        self.for_good = False  # it leaves, and no other worker continues
        self.goodbye = False  # the app knows that it is to leave
        self.returned = False  # the app
        self.let_go = False  # the interface was told that it is over; the app continues

    @property
    def gone(self) -> bool:
        """Whether what the app sends goes nowhere."""
        return self.left_with is not None or self.goodbye or self.returned

    def depart(self) -> None:
        """Tell the channel layer that the app ends, and another worker continues."""
        if self.left_with is None and not self.closed and not self.for_good:
            self.connection.leaving = True

    def disconnected(self) -> ClientDisconnected:
        """Return what a send raises, whoever is gone."""
        if self.goodbye:
            self.depart()
        return ClientDisconnected()
