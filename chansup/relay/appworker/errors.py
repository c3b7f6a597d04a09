"""What the app is told by an exception."""

from chansup.errors import ChansupError


class ClientDisconnected(OSError):
    """The client is gone: what the app sends goes nowhere (ASGI 2.4, "Disconnected Client")."""

    def __init__(self) -> None:
        super().__init__("the client is gone")


class UnexpectedEvent(ChansupError, RuntimeError):
    """The app sent an event that may not come now, or not at all."""
