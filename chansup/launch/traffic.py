"""What this process has in hand: requests and WebSockets, from the app's first line to its last."""

from typing import Protocol


class Held(Protocol):
    """A request or a WebSocket that the app works on."""

    def cut(self) -> None:
        """End it now, whatever the app does."""


class HeldWebSocket(Held, Protocol):
    """A WebSocket that the app works on."""

    accepted: bool

    def close(self) -> None:
        """Tell the client to come back elsewhere, and let the app see the disconnect."""


class Traffic:
    """The books that the instrument keeps and the drain reads."""

    def __init__(self) -> None:
        self.draining = False  # answer "Connection: close", and 503 on the health path
        self.requests: set[Held] = set()
        self.websockets: set[HeldWebSocket] = set()
        self.released = 0  # responses and WebSockets that ended so far, seen only while draining
