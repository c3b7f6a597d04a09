"""Which client's connection the app works on, told by the relay to the channel layer.

The relay sets `connection` in the context in which it runs the app of a WebSocket, before the app
is called; what the app starts inherits it. The channel layer of the worker that the WebSocket
leaves, and that of the worker it goes to, know by the `id` that it is the same one, so that
messages which come in between wait for it.

`leaving` becomes true when the app is told to end because of a handover: at the moment when it is
given websocket.disconnect, or when a send of its fails for that reason, and not sooner: until then
it may leave a group because it wants to. It never becomes true when the client is gone. An app that
is cancelled because of a handover finds it true, too. If it is cancelled while it may be in the
midst of a message that it took from the channel layer, `unfinished` is true: that one is not for
the next worker, for a part of it may have been done.

When the app has accepted and asks for what comes next the relay calls `welcomes`: by then it has
joined the groups that it joins again after a handover. When it has returned the relay calls
`farewells`, before another worker begins: an app need not end everything that it has begun.
"""

from collections.abc import Callable
from contextvars import ContextVar


class Connection:
    """A WebSocket that may move between workers."""

    __slots__ = ("channels", "farewells", "id", "leaving", "unfinished", "welcomes")

    def __init__(self, id: str) -> None:
        self.id = id  # the same in each worker, of no other connection; ASCII, at most 200
        self.leaving = False  # the app was told to end, for another worker goes on
        self.unfinished = False  # what it took from the channel layer is not for the next worker
        self.welcomes: list[Callable[[], None]] = []  # of the channel layer
        self.farewells: list[Callable[[], None]] = []
        self.channels = 0  # that the channel layer made for it; the layer counts


connection: ContextVar[Connection | None] = ContextVar("chansup_connection", default=None)
