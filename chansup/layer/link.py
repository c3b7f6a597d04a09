"""The connection of one event loop to the hub.

Nothing here runs in a task of its own: frames are read in a callback, and all messages of one
turn of the loop leave in one write at its end. When the connection is lost, the link connects
again, with growing pauses, and listens again to what was listened to; of requests that had no
answer the hub then says which were carried out, and the others are sent again.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Protocol

import msgspec

from chansup.layer import farewell, frames
from chansup.layer.attempts import Attempts
from chansup.layer.conversation import Conversation
from chansup.layer.demands import Demands
from chansup.layer.errors import HubUnavailable
from chansup.layer.frames import ID, Decoder, FrameError, Kind, pack
from chansup.layer.greetings import Welcome, in_words, understands
from chansup.layer.inbox import Inboxes
from chansup.layer.loop_end import LoopEnd
from chansup.layer.outbox import Outbox
from chansup.layer.policies import Policy
from chansup.layer.requests import GONE
from chansup.layer.waiters import wake
from chansup.unix import credentials

logger = logging.getLogger("chansup.layer")

_welcome = msgspec.msgpack.Decoder(Welcome)


class Owner(Protocol):
    """Who has the links of a process: what they say of it, and what they share."""

    address: str
    patience: float  # seconds that a request waits

    @property
    def policy(self) -> Policy:
        """What goes for what this layer sends."""

    def find_address(self) -> str:
        """Return where the hub listens."""

    def number_connection(self) -> int:
        """Return a number for one more connection."""

    def hello(self, link: int = 0, former: int = 0, received: int = 0) -> bytes:
        """Return what the hub is told at first."""

    def policy_frame(self) -> bytes:
        """Return what tells a hub the policy of now."""

    def needs_hub(self) -> bool:
        """Say whether a connection is needed though nobody waits for it."""

    def replay(self, welcome: Welcome) -> Iterator[bytes]:
        """Yield what a hub has to be told that knows nothing."""

    def forget_memberships(self) -> None:
        """Take notice that all groups are gone."""

    def claim(self, name: bytes, link: "Link") -> None:
        """Let a link receive from a channel, and no other."""

    def is_bound(self, name: bytes) -> bool:
        """Say whether a channel was made for a client's connection."""

    def abandon_channel(self, name: bytes, link: "Link") -> None:
        """Take notice that nobody receives from a channel any more."""


class Link:
    """Connects, reads, and connects again. Messages and requests have places of their own."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.outbox = Outbox(loop, self.connect)
        self.inboxes = Inboxes(self.outbox, self)
        self.demands = Demands(self.outbox)
        self.conversation = Conversation(self.outbox, self)
        self._owner = owner
        self._attempts = Attempts(loop, self._try_again, lambda: owner.address)
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._number_of_connection = 0  # of those of this process
        self._received = 0  # messages by this connection
        self._former = (0, 0)  # number of the one before, and messages by it
        self._waiting: list[asyncio.Future[None]] = []  # for the connection
        self._loop_end: LoopEnd | None = None
        self._is_greeted = False  # WELCOME has come on this connection
        self._knows_policy = False
        self._told_policy = owner.policy

    @property
    def ready(self) -> bool:
        """Whether the hub listens."""
        return self.outbox.ready

    @property
    def closed(self) -> bool:
        """Whether it has ended for good."""
        return self.outbox.closed

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""
        return self._owner.patience

    # Channels of this process: which event loop receives from them

    def claim(self, name: bytes) -> None:
        """Let this event loop receive from a channel, and no other."""
        self._owner.claim(name, self)

    def is_bound(self, name: bytes) -> bool:
        """Say whether a channel was made for a client's connection."""
        return self._owner.is_bound(name)

    def abandon_channel(self, name: bytes) -> None:
        """Take notice that nobody receives from a channel any more."""
        self._owner.abandon_channel(name, self)

    # The connection

    def connect(self) -> None:
        """Try to connect, and keep trying."""
        if self._socket is not None or self.closed or self._attempts.is_pausing:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(self._owner.find_address())
            user = credentials(sock).uid
            if user not in (os.geteuid(), 0):
                raise PermissionError(f"it belongs to user id {user}, and is not trusted")
        except OSError as error:
            sock.close()
            self._attempts.failed(error.strerror or str(error))
            return
        if self._loop_end is None:
            self._loop_end = LoopEnd(self)
        self._socket = sock
        self._is_greeted = False
        self._decoder = Decoder()
        self._received = 0
        self._number_of_connection = self._owner.number_connection()
        self._told_policy = self._owner.policy
        hello = self._owner.hello(self._number_of_connection, *self._former)
        self.loop.add_reader(sock.fileno(), self.read)
        self.outbox.open(sock, pack(Kind.HELLO, hello))

    def _try_again(self) -> None:
        receiving = self.inboxes or self.demands
        asking = self._waiting or self.conversation.is_unsure
        if receiving or asking or self.outbox.has_deferred or self._owner.needs_hub():
            self.connect()

    async def until_ready(self, deadline: float) -> None:
        """Wait for the connection. Raises HubUnavailable."""
        while not self.ready:
            if self.closed:
                raise HubUnavailable("this channel layer was closed in its event loop")
            self._attempts.stop_pausing()  # somebody asks
            self.connect()
            remaining = deadline - self.loop.time()
            if remaining <= 0:
                hint = "" if self._attempts.refusal else ". Is `chansup run` running?"
                raise HubUnavailable(self._attempts.why_not() + hint)
            waiter = self.loop.create_future()
            self._waiting.append(waiter)
            timer = self.loop.call_later(remaining, wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiter)

    def _greeted(self, payload: bytes) -> None:
        welcome = _welcome.decode(payload)
        if not understands(welcome):
            problem = (
                f"the hub of chansup {welcome.version[:50]} speaks {in_words(welcome)}, and this "
                "process does not: `chansup reload` replaces a process that is older than the hub, "
                "a restart of chansup replaces the hub as well"
            )
            self._attempts.problem = problem
            raise FrameError(problem)
        outbox = self.outbox
        same = welcome.epoch == outbox.epoch
        outbox.epoch = welcome.epoch
        self._attempts.succeeded()
        self._is_greeted = True
        self._knows_policy = welcome.knows_policy
        outbox.ready = True
        self.tell_policy()
        self.inboxes.greeted(same)
        for frame in self._owner.replay(welcome):  # first: what was missed comes before what comes
            self.conversation.notify(frame)
        self.inboxes.listen()
        self.demands.ask_again(same)
        for frame in outbox.take_deferred():
            outbox.emit(frame)
        self.conversation.ask_again(welcome)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            wake(waiter)
        self.demands.settle_rest()

    def lose(self, problem: str, why: str = GONE) -> None:
        """Take notice that the connection is gone, and see to a new one."""
        if self.ready:
            self._attempts.begin_absence()
        if self._is_greeted:
            self._former = (self._number_of_connection, self._received)
        self._drop_socket()
        self._attempts.problem = self._attempts.problem or problem
        self.conversation.lost(why)
        if not self.closed:
            self._attempts.lost()

    def _drop_socket(self) -> None:
        sock, self._socket = self._socket, None
        self.outbox.drop()
        if sock is None:
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(sock.fileno())
        sock.close()

    def close(self) -> None:
        """End for good. In the loop's own thread, or when the loop is closed."""
        if self.closed:
            return
        self.outbox.closed = True
        if self.ready:
            self.outbox.flush_once()
        elif self.outbox.has_deferred:  # before the socket is closed: else it looks like a crash
            deferred = self.outbox.take_deferred()
            farewell.say(self._owner.find_address(), self._owner.hello(), deferred)
        if not self.loop.is_closed():
            self._attempts.stop_pausing()
            gone = HubUnavailable("this channel layer was closed in its event loop")
            self.conversation.fail_all(gone)
            self.demands.fail_all(gone)
            self.inboxes.fail_all(gone)
            for waiter in self._waiting:
                wake(waiter)
        self.conversation.clear()
        self._forget_loop_end()
        self.demands.clear()
        self.inboxes.clear()
        self._drop_socket()

    def abandon(self, name: bytes) -> None:
        """Give back all that was delivered, from another thread: the loop does not run.

        When it runs again it connects again, and listens to everything but this channel.
        """
        self.inboxes.forget(name)
        sock = self._socket
        if sock is not None:
            self.outbox.flush_once()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the loop finds out when it runs again

    def __del__(self) -> None:
        sock = getattr(self, "_socket", None)
        if sock is not None:
            sock.close()

    def _forget_loop_end(self) -> None:
        loop_end, self._loop_end = self._loop_end, None
        if loop_end is not None:
            loop_end.forget()

    def forget_in_child(self) -> None:
        """Close the descriptor after a fork, and nothing else: the loop is the parent's."""
        sock, self._socket = self._socket, None
        self.outbox.closed = True
        self.outbox.ready = False
        self._forget_loop_end()
        if sock is not None:
            sock.close()

    def tell_policy(self) -> None:
        """Tell the hub that another policy goes from now on."""
        if self.ready and self._knows_policy and self._told_policy is not self._owner.policy:
            self._told_policy = self._owner.policy
            self.outbox.emit(self._owner.policy_frame())

    def read(self) -> None:
        """Take what has come."""
        if self._socket is None:
            return
        try:
            data = self._socket.recv(frames.READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lose(error.strerror or str(error))
            return
        if not data:
            self.lose("the hub closed the connection")
            return
        self.conversation.is_heard = True
        try:
            self._take_all(self._decoder.feed(data))
        except (FrameError, msgspec.DecodeError, struct.error, IndexError) as error:
            logger.error("chansup: malformed message from the hub: %s", error)
            self.lose(str(error))

    def _take_all(self, received: list[frames.Frame]) -> None:
        inboxes = self.inboxes
        now = time.monotonic()
        try:
            for kind, payload in received:
                if kind == Kind.ANSWERED:
                    self.conversation.succeeded(ID.unpack(payload)[0])
                elif kind == Kind.DELIVER:
                    self._received += 1
                    inboxes.deliver(payload, now)
                elif kind == Kind.HAND:
                    self._received += 1
                    self.demands.give(payload, now)
                elif kind == Kind.DELIVER_MANY:
                    self._received += inboxes.deliver_to_many(payload, now)
                else:
                    self._take(kind, payload)
        finally:
            self.demands.hand_over()

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == Kind.REFUSED and not self._is_greeted:
            self._attempts.refusal = payload[1:].decode()
            self.lose(self._attempts.refusal)
        elif kind == Kind.REFUSED:
            self.conversation.refused(payload)
        elif kind == Kind.RESULT:
            self.conversation.result(payload)
        elif kind == Kind.WELCOME:
            self._greeted(payload)
        elif kind == Kind.QUIESCE:
            self._quiesce()
        elif kind == Kind.FLUSHED:
            self._owner.forget_memberships()
            self.inboxes.begin_anew()
            self.outbox.emit(pack(Kind.CLEARED))
        elif kind == Kind.CLEAN:
            self.conversation.is_clean()
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _quiesce(self) -> None:
        """Say nothing more, until there is a new connection: to the next hub, or to this one."""
        outbox = self.outbox
        outbox.emit_taken()
        outbox.emit(pack(Kind.QUIET))  # in one write with what was taken: both arrive, or neither
        outbox.flush()
        outbox.ready = False
        self._attempts.begin_absence()
