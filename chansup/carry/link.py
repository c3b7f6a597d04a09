"""This process's end of the channel to the supervisor, who holds its sockets.

Nothing here waits: what the supervisor cannot take yet is kept, in order, and said later.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chansup.protocol import carry
from chansup.protocol.carry import ChannelClosedError, ChildMessage, HolderMessage, PacketError

_READS = 64  # messages at a time: clients have their turn, too
_PAUSE = 0.01  # seconds, while too many descriptors are under way: no event tells the end of that


class _Unsaid(NamedTuple):
    message: ChildMessage
    descriptor: int | None  # a duplicate of this link's own
    then: Callable[[], None] | None


class Link:
    """The channel. `take` gets each message and its descriptor, which it closes.

    `on_room` is called when all was said that had to wait, `on_lost` once, with the reason, when
    the channel cannot be used any more.
    """

    def __init__(
        self,
        sock: socket.socket,
        take: Callable[[HolderMessage, int | None], None],
        on_room: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._socket = sock
        self._take = take
        self._on_room = on_room
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsaid: deque[_Unsaid] = deque()
        self._is_waiting = False
        self.is_open = True
        sock.setblocking(False)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read what the supervisor says from now on."""
        self._loop = loop
        loop.add_reader(self._socket, self._read)

    def say(
        self,
        message: ChildMessage,
        descriptor: int | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Say something, now or as soon as there is room. `then` is called when it was said."""
        if not self.is_open:
            return
        if not self._unsaid and self._send(message, descriptor):
            if then is not None:
                then()
        elif self.is_open:
            own = None if descriptor is None else os.dup(descriptor)
            self._unsaid.append(_Unsaid(message, own, then))

    def say_now(self, message: ChildMessage, descriptor: int) -> bool:
        """Say something if there is room and nothing waits. Say whether it was said.

        `on_room` is called when it is worth another attempt.
        """
        if not self.is_open or self._unsaid:
            return False
        return self._send(message, descriptor)

    def _send(self, message: ChildMessage, descriptor: int | None) -> bool:
        try:
            carry.send(self._socket, message, descriptor)
        except BlockingIOError:
            self._wait(for_descriptors=False)
            return False
        except OSError as error:
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                self._wait(for_descriptors=True)
            else:
                self._lose(f"the supervisor cannot be told anything: {error.strerror}")
            return False
        return True

    def _wait(self, for_descriptors: bool) -> None:
        if self._is_waiting or self._loop is None:
            return
        self._is_waiting = True
        if for_descriptors:
            self._loop.call_later(_PAUSE, self._say_rest)
        else:
            self._loop.add_writer(self._socket, self._say_rest)

    def _say_rest(self) -> None:
        if not self.is_open:
            return
        assert self._loop is not None
        self._loop.remove_writer(self._socket)
        self._is_waiting = False
        while self._unsaid:
            message, descriptor, then = self._unsaid[0]
            if not self._send(message, descriptor):
                return
            self._unsaid.popleft()
            if descriptor is not None:
                os.close(descriptor)
            if then is not None:
                then()
        self._on_room()

    def _read(self) -> None:
        for _ in range(_READS):
            if not self.is_open:
                return
            try:
                message, descriptor = carry.receive_from_holder(self._socket)
            except (BlockingIOError, InterruptedError):
                return
            except (PacketError, ChannelClosedError, OSError) as error:
                self._lose(str(error))
                return
            self._take(message, descriptor)

    def _lose(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self._on_lost(reason)

    def close(self) -> None:
        """Say and hear nothing any more."""
        if not self.is_open:
            return
        self.is_open = False
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        for unsaid in self._unsaid:
            if unsaid.descriptor is not None:
                os.close(unsaid.descriptor)
        self._unsaid.clear()
        self._socket.close()
