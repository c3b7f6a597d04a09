"""Finding out whether a program takes connections from the listening socket that it inherited.

One connection is enough: it waits in the queue of the slot's own listener until somebody accepts
it. Where others wait there already, one of those will do.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextlib import ExitStack

from chansup.supervisor.sockets import accept_queue
from chansup.supervisor.sockets.listeners import Listeners

_PAUSE = 0.05  # seconds between two looks
_LOOK = 0.01  # the same, at who took a connection
_TAKEN = 1.0  # seconds until a connection is taken


async def accepted(listeners: Listeners, slot: int) -> None:
    """Return as soon as a connection was accepted on the listener of `slot`."""
    before = 0
    with ExitStack() as open_until_then:
        visited = False
        while True:
            sock = listeners.socket_of(slot)
            if not accept_queue.some_wait([sock]):
                if before or visited:
                    return
                visited = True
                open_until_then.enter_context(await _visit(listeners, slot))
                continue
            queue = accept_queue.look(sock)
            length = queue.length if queue is not None else 1
            if length < before:
                return
            before = length
            await asyncio.sleep(_PAUSE)


async def taken(listeners: Listeners, slot: int, has: Callable[[int], bool]) -> bool:
    """Visit once; return whether `has` is true for the inode of the connection, once accepted.

    False if that took too long, if others took it, or if it was closed at once.
    """
    with await _visit(listeners, slot) as visitor:
        for _ in range(round(_TAKEN / _LOOK)):
            try:
                inode = accept_queue.accepted_as(visitor)
            except OSError:  # it could not connect, or this kernel does not tell
                return False
            if inode:
                return has(inode)
            if accept_queue.some_wait([visitor]):  # it was closed
                return False
            await asyncio.sleep(_LOOK)
    return False


async def _visit(listeners: Listeners, slot: int) -> socket.socket:
    sock = listeners.socket_of(slot)
    visitor = socket.socket(sock.family, socket.SOCK_STREAM)
    visitor.setblocking(False)
    address = sock.getsockname()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            if sock.family != socket.AF_UNIX:
                host = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
                visitor.bind((host if _is_any(address[0]) else address[0], 0))
                address = (host if _is_any(address[0]) else address[0], *address[1:])
                listeners.lead(visitor.getsockname()[1], slot)
            async with asyncio.timeout(1.0):
                await asyncio.get_running_loop().sock_connect(visitor, address)
    finally:
        listeners.lead(None, slot)
    return visitor


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")
