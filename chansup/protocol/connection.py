"""Which client's connection the app works on, told by the relay to the channel layer.

The relay sets `connection` around the app of a WebSocket. The channel layer of the worker that the
WebSocket leaves, and that of the worker it goes to, know by the `id` that it is the same one, so
that messages which come in between wait for it.
"""

from contextvars import ContextVar


class Connection:
    """A WebSocket that may move between workers."""

    __slots__ = ("channels", "id", "leaving")

    def __init__(self, id: str) -> None:
        self.id = id  # the same in each worker, of no other connection; ASCII, at most 200
        self.leaving = False  # the app was told to end, for another worker goes on
        self.channels = 0  # that the channel layer made for it; the layer counts


connection: ContextVar[Connection | None] = ContextVar("chansup_connection", default=None)
