"""The connection of one event loop to the hub.

Nothing here runs in a task of its own: frames are read in a callback, and what is sent during one
turn of the loop leaves in one write at its end. When the connection is lost, the link connects
anew, with growing pauses, and listens again to what was listened to; of requests that had no answer
the hub then says which were carried out, and the others are sent again.
"""

import asyncio
import contextlib
import logging
import math
import os
import random
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any

import msgspec

from chansup.layer import farewell, frames
from chansup.layer.delivery import Handed
from chansup.layer.errors import HubError, HubLost, HubUnavailable
from chansup.layer.frames import (
    CLAIM,
    DELIVERIES,
    DELIVERY,
    HANDED,
    ID,
    MAX_MILLISECONDS,
    PARKED,
    PROTOCOL,
    RETURNED,
    Decoder,
    FrameError,
    Kind,
    Reason,
    pack,
    pack_ids,
    string,
)
from chansup.layer.greetings import Welcome
from chansup.layer.requests import GONE, Refusal, Request, Requests
from chansup.protocol.connection import connection as current_connection
from chansup.protocol.peer import credentials

if TYPE_CHECKING:
    from chansup.layer.client import Client

logger = logging.getLogger("chansup.layer")

_FIRST_PAUSE = 0.01  # seconds before the second attempt to connect
_SHORT_PAUSE = 0.1  # at most, while it is likely that a hub comes back soon
_LONGEST_PAUSE = 1.0
_LONG = 5.0  # seconds without a hub before it is worth a warning
_SWEEP = 1.0  # seconds between two looks for old messages that nobody took
_DELAY = 0.005  # seconds that the hub may learn later what was taken
_MAX_TAKEN = 200  # messages that it may learn of together
_AGAIN = 0.1  # seconds between two looks at a hub that says something, but no answer
_LEFT = MAX_MILLISECONDS
_MAX_ID = 2**32 - 1
_ORPHAN = -1  # number of a message that the hub knows nothing of
_welcome = msgspec.msgpack.Decoder(Welcome)


Entry = tuple[int, float, bytes, bool]  # number, deadline, body, whether the channel fills up


class Inbox:
    """What was delivered to a channel with "!", and not taken yet."""

    __slots__ = ("entries", "id", "in_hand", "is_bound", "last", "name", "waiters")

    def __init__(self, name: bytes, is_bound: bool) -> None:
        self.name = name
        self.is_bound = is_bound  # if this process dies, another one goes on with it at once
        self.id = 0
        self.entries: deque[Entry] = deque()
        self.waiters: deque[asyncio.Future[None]] = deque()
        self.last = 0  # number of the last message that was taken
        self.in_hand: tuple[float, bytes] | None = None  # taken, and not dealt with for sure

    def wake(self) -> None:
        """Let one of those who wait look again."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Demand:
    """Somebody who waits for one message of an ordinary channel."""

    __slots__ = ("future", "hold", "id", "name", "stranded")

    def __init__(self, name: bytes, hold: bool, future: "asyncio.Future[Handed]") -> None:
        self.name = name
        self.hold = hold  # the hub keeps the message until it was dealt with
        self.future = future
        self.id = 0
        self.stranded: Handed | None = None  # came when the hub could not be told any more


class Link:
    """Frames out, frames in, for one event loop."""

    def __init__(self, client: "Client", loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ready = False
        self.closed = False
        self._client = client
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._out: list[bytes] = []
        self._taken: list[int] = []
        self._held: dict[int, Handed] = {}  # in the hands of the app; the hub keeps them
        self._settled: list[tuple[Handed, bool, bool]] = []  # for when the connection is back
        self._deferred: list[bytes] = []  # for when the connection is back
        self._unsent: memoryview | None = None
        self._scheduled = False
        self._writing = False
        self._requests = Requests()
        self._number_of_connection = 0  # of those of this process
        self._received = 0  # messages by this connection
        self._former = (0, 0)  # number of the one before, and messages by it
        self._is_cut = False  # nothing can be written any more; what came is still read
        self._watching: asyncio.TimerHandle | None = None  # over the oldest of them
        self._heard = False  # something since the last look
        self._waiting: list[asyncio.Future[None]] = []  # for the connection
        self._flushes: deque[asyncio.Future[None]] = deque()  # that are not over everywhere
        self._inboxes: dict[bytes, Inbox] = {}
        self._by_id: dict[int, Inbox] = {}
        self._demands: dict[int, Demand] = {}
        self._id = 0
        self._epoch = ""
        self._attempts = 0
        self._retrying: asyncio.TimerHandle | None = None
        self._sweeping = False
        self._telling = False
        self._end: AsyncGenerator[None, None] | None = None
        self._problem = ""
        self._is_greeted = False  # WELCOME has come on this connection
        self._knows_policy = False
        self._told_policy = client.policy
        self._refusal = ""  # what came in its place
        self._lost_at = loop.time()
        self._warned = False

    @property
    def has_channels(self) -> bool:
        """Whether it listens to channels of this process."""
        return bool(self._inboxes)

    @property
    def _is_connected(self) -> bool:
        return self._socket is not None and not self._is_cut

    # The connection

    def connect(self) -> None:
        """Try to connect, and go on trying."""
        if self._socket is not None or self.closed or self._retrying is not None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(self._client.find_address())
            user = credentials(sock).uid
            if user not in (os.geteuid(), 0):
                raise PermissionError(f"it belongs to user id {user}, and is not trusted")
        except OSError as error:
            sock.close()
            self._problem = error.strerror or str(error)
            self._refusal = ""
            self._retry()
            return
        self._end_with_loop()
        self._socket = sock
        self._is_greeted = False
        self._decoder = Decoder()
        self._is_cut = False
        self._received = 0
        self._number_of_connection = self._client.number_connection()
        self._told_policy = self._client.policy
        hello = self._client.hello(self._number_of_connection, *self._former)
        self._out = [pack(Kind.HELLO, hello)]
        self.loop.add_reader(sock.fileno(), self._read)
        self.flush()

    def _end_with_loop(self) -> None:
        """Close the link when the loop ends, as far as it tells: asyncio.run and Channels' do."""
        if self._end is None:
            self._end = _until_shutdown(weakref.ref(self))
            _step(self._end.__anext__())

    def _retry(self) -> None:
        self._attempts += 1
        longest = _SHORT_PAUSE if self.loop.time() - self._lost_at < _LONG else _LONGEST_PAUSE
        pause = min(longest, _FIRST_PAUSE * 2 ** min(self._attempts, 10))
        if not self._warned and self.loop.time() - self._lost_at > _LONG:
            self._warned = True
            logger.warning("chansup: %s. Trying on", self._why_not())
        pause *= 0.75 + random.random() / 2  # noqa: S311 - so that not all come at once
        self._retrying = self.loop.call_later(pause, self._try_again)

    def _try_again(self) -> None:
        self._retrying = None
        receiving = self._inboxes or self._demands or self._held or self._settled
        asking = self._waiting or self._requests.oldest_unsure() is not None
        if receiving or asking or self._deferred or self._client.needs_hub():
            self.connect()

    async def until_ready(self, deadline: float) -> None:
        """Wait for the connection. Raises HubUnavailable."""
        while not self.ready:
            if self.closed:
                raise HubUnavailable("this channel layer was closed in its event loop")
            if self._retrying is not None:  # somebody asks: do not pause
                self._retrying.cancel()
                self._retrying = None
            self.connect()
            remaining = deadline - self.loop.time()
            if remaining <= 0:
                hint = "" if self._refusal else ". Is `chansup run` running?"
                raise HubUnavailable(self._why_not() + hint)
            waiter = self.loop.create_future()
            self._waiting.append(waiter)
            timer = self.loop.call_later(remaining, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiter)

    def _why_not(self) -> str:
        """Say why there is no connection."""
        address = self._client.address
        if self._refusal:
            return f"the channel layer hub at {address} refuses this process: {self._refusal}"
        why = f" ({self._problem})" if self._problem else ""
        return f"no channel layer hub answers at {address}{why}"

    def _greeted(self, payload: bytes) -> None:
        welcome = _welcome.decode(payload)
        if welcome.protocol != PROTOCOL:
            self._problem = (
                f"the hub of chansup {welcome.version} speaks another protocol: restart it"
            )
            raise FrameError(self._problem)
        same = welcome.epoch == self._epoch
        self._epoch = welcome.epoch
        self._attempts = 0
        self._problem = self._refusal = ""
        self._is_greeted = True
        self._knows_policy = welcome.knows_policy
        self._warned = False
        self.ready = True
        self.tell_policy()
        self._by_id.clear()
        for inbox in self._inboxes.values():
            if same:
                inbox.entries.clear()  # the hub still has them
            else:  # the hub that had them is no more, and its successor counts anew
                inbox.last = 0
                inbox.entries = deque((_ORPHAN, *entry[1:]) for entry in inbox.entries)
        for frame in self._client.replay(welcome):  # first: what was missed comes before what comes
            self._requests.add(Request(frame, 0.0))
            self._emit(frame)
        for inbox in self._inboxes.values():
            self._listen(inbox)
        self._hold_on(same)
        demands = list(self._demands.values())
        self._demands.clear()
        for demand in demands:
            stranded, demand.stranded = demand.stranded, None
            if demand.future.done():
                continue
            if stranded is not None and not same:
                demand.future.set_result(stranded)
            else:
                self._demand(demand)
        for frame in self._deferred:
            self._emit(frame)
        self._deferred.clear()
        for request in self._requests.settle(welcome, self.loop.time()):
            self._requests.add(request)
            self._emit(request.frame)
            self._watch(self._client.patience)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            _wake(waiter)
        self._settle_rest()

    def _hold_on(self, same: bool) -> None:
        """Tell a hub that has taken over what is in hand here; another one knows nothing of it."""
        held = list(self._held.values())
        self._held.clear()
        if same:
            for handed in held:
                handed.id = self._new_id()
                self._held[handed.id] = handed
                self._emit(pack(Kind.CLAIM, CLAIM.pack(handed.id, handed.number) + handed.name))

    def _settle_rest(self) -> None:
        settled, self._settled = self._settled, []
        for one in settled:
            self.settle(*one)

    def _lose(self, problem: str, why: str = GONE) -> None:
        """Take notice that the connection is gone, and see to a new one."""
        if self.ready:
            self._lost_at = self.loop.time()
        if self._is_greeted:
            self._former = (self._number_of_connection, self._received)
        self._drop_socket()
        self._problem = self._problem or problem
        self._requests.lose(why)
        for flush in self._flushes:
            _fail(flush, HubLost(why))
        self._flushes.clear()
        if not self.closed and self._retrying is None:
            if self._attempts:
                self._retry()
            else:
                self._attempts = 1
                self._retrying = self.loop.call_later(0, self._try_again)

    def _drop_socket(self) -> None:
        sock, self._socket = self._socket, None
        self.ready = False
        self._taken.clear()
        self._out.clear()
        self._unsent = None
        if sock is None:
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(sock.fileno())
            if self._writing:
                self.loop.remove_writer(sock.fileno())
        self._writing = False
        sock.close()

    def close(self) -> None:
        """End for good. In the loop's own thread, or when the loop is closed."""
        if self.closed:
            return
        self.closed = True
        if self.ready:
            self._flush_once()
        elif self._deferred:  # before the socket is closed: else the hub takes it for a crash
            farewell.say(self._client.find_address(), self._client.hello(), self._deferred)
            self._deferred.clear()
        if not self.loop.is_closed():
            if self._retrying is not None:
                self._retrying.cancel()
                self._retrying = None
            gone = HubUnavailable("this channel layer was closed in its event loop")
            if self._watching is not None:
                self._watching.cancel()
                self._watching = None
            self._requests.fail_all(gone)
            for demand in self._demands.values():
                if not demand.future.done():
                    demand.future.set_exception(gone)
            for inbox in self._inboxes.values():
                for listener in inbox.waiters:
                    _fail(listener, gone)
            for flush in self._flushes:
                _fail(flush, gone)
            for waiter in self._waiting:
                _wake(waiter)
        self._flushes.clear()
        self._requests.clear()
        self._forget_end()
        self._demands.clear()
        self._held.clear()
        self._settled.clear()
        self._inboxes.clear()
        self._by_id.clear()
        self._drop_socket()

    def abandon(self, name: bytes) -> None:
        """Give back all that was delivered, from another thread: the loop does not run.

        When it runs again it connects anew, and listens to everything but this channel.
        """
        inbox = self._inboxes.pop(name, None)
        if inbox is not None:
            self._by_id.pop(inbox.id, None)
        sock = self._socket
        if sock is not None:
            self._flush_once()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the loop finds out when it runs again

    def __del__(self) -> None:
        sock = getattr(self, "_socket", None)
        if sock is not None:
            sock.close()

    def _forget_end(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            _step(end.aclose())

    def forget_in_child(self) -> None:
        """Close the descriptor after a fork, and nothing else: the loop is the parent's."""
        sock, self._socket = self._socket, None
        self.closed = True
        self.ready = False
        self._forget_end()
        if sock is not None:
            sock.close()

    # Out

    def request(self, frame: bytes) -> "asyncio.Future[bytes]":
        """Send a request, and return its answer to be."""
        future: asyncio.Future[bytes] = self.loop.create_future()
        self._requests.add(Request(frame, self.loop.time(), future))
        self._watch(self._client.patience)
        if self._taken:  # before the request, which may be for the very room that it makes
            self._emit_taken()
        self._out.append(frame)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.flush)
        return future

    def notify(self, frame: bytes) -> None:
        """Send a request whose answer does not matter; nothing, if there is no connection."""
        if self.ready:
            self._requests.add(Request(frame, 0.0))
            self._emit(frame)

    def tell_policy(self) -> None:
        """Tell the hub that another policy goes from now on."""
        if self.ready and self._knows_policy and self._told_policy is not self._client.policy:
            self._told_policy = self._client.policy
            self._emit(self._client.policy_frame())

    def _watch(self, seconds: float) -> None:
        if self._watching is None:
            self._watching = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Give up the connection if nothing comes from the hub, and an answer is overdue.

        What has waited too long for another hub is given up, too.
        """
        patience = self._client.patience
        self._watching = None
        self._requests.fail_overdue(self.loop.time() - patience, GONE)
        remaining = self._remaining(patience)
        if remaining <= 0:
            self._heard = False
            self._read()  # this process may be the one that stood still
            remaining = self._remaining(patience)
            if remaining <= 0 and not self._heard:
                self._out.append(pack(Kind.QUIET))  # what is in hand here stays
                self._flush_once()
                silent = f"the hub has not answered for {patience:g} s"
                self._lose(f"it has not answered for {patience:g} s", silent)
                self._requests.fail_overdue(self.loop.time() - patience, silent)
                remaining = math.inf
        since = self._requests.oldest_unsure()
        if since is not None:
            remaining = min(remaining, since + patience - self.loop.time())
        if remaining < math.inf:
            self._watch(max(remaining, _AGAIN))

    def _remaining(self, patience: float) -> float:
        """Return how long the hub may still take for the oldest request that somebody waits for."""
        since = self._requests.oldest()
        return math.inf if since is None else since + patience - self.loop.time()

    async def flush_all(self) -> None:
        """Let the hub and all its clients forget all messages and groups. Raises HubLost."""
        everywhere: asyncio.Future[None] = self.loop.create_future()
        self._flushes.append(everywhere)
        request = self.request(pack(Kind.FLUSH))
        late = HubLost("the hub has not said in time that all is forgotten everywhere")
        timer = self.loop.call_later(2 * self._client.patience, _fail, everywhere, late)
        try:
            await request
            await everywhere
        finally:
            timer.cancel()
            for future in (request, everywhere):  # the other one fails for the same reason
                if future.done() and not future.cancelled():
                    future.exception()

    def send_or_defer(self, frame: bytes) -> None:
        """Send what has no answer; later, if there is no connection now."""
        if self.ready:
            self._emit(frame)
        else:
            self._deferred.append(frame)
            self.connect()

    def _emit(self, frame: bytes) -> None:
        self._out.append(frame)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.flush)

    def _emit_taken(self) -> None:
        if self._taken:
            self._out.append(pack_ids(Kind.TAKEN, self._taken))
            self._taken.clear()

    def flush(self) -> None:
        """Write what was gathered."""
        self._scheduled = False
        if not self._is_connected or self._unsent is not None:
            return
        if self._taken:
            self._emit_taken()
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._write(memoryview(data))

    def _flush_once(self) -> None:
        """Write what goes without waiting: above all what was taken."""
        if self._socket is None or self._is_cut:
            return
        self._emit_taken()
        unsent = [self._unsent] if self._unsent is not None else []
        data = b"".join([*unsent, *self._out])
        self._unsent = None
        self._out.clear()
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def _write(self, data: memoryview) -> None:
        assert self._socket is not None
        try:
            written = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError:
            self._cut()
            return
        if written < len(data):
            self._unsent = data[written:]
            if not self._writing:
                self._writing = True
                self.loop.add_writer(self._socket.fileno(), self._write_rest)
        elif self._writing:
            self._writing = False
            self.loop.remove_writer(self._socket.fileno())

    def _cut(self) -> None:
        """Write nothing more. What the hub has said is still there, and is read until its end."""
        assert self._socket is not None
        self._is_cut = True
        self.ready = False
        self._out.clear()
        if self._writing:
            self._writing = False
            self.loop.remove_writer(self._socket.fileno())

    def _write_rest(self) -> None:
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            self._write(unsent)
        if self._unsent is None:
            self.flush()

    # In

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(frames.READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("the hub closed the connection")
            return
        self._heard = True
        try:
            self._take_all(self._decoder.feed(data))
        except (FrameError, msgspec.DecodeError, struct.error, IndexError) as error:
            logger.error("chansup: the hub sends what makes no sense: %s", error)
            self._lose(str(error))

    def _take_all(self, received: list[frames.Frame]) -> None:
        given: list[tuple[Demand, Handed]] = []
        now = time.monotonic()
        for kind, payload in received:
            if kind == Kind.ANSWERED:
                for _ in range(ID.unpack(payload)[0]):
                    self._requests.answered().succeed()
            elif kind == Kind.DELIVER:
                self._received += 1
                number, left, id = DELIVERY.unpack_from(payload)
                inbox = self._by_id.get(id)
                if inbox is not None:
                    body = payload[DELIVERY.size :]
                    self._put(inbox, (number, now + (left & _LEFT) / 1000, body, left > _LEFT))
            elif kind == Kind.HAND:
                self._received += 1
                self._give(payload, now, given)
            elif kind == Kind.DELIVER_MANY:
                number, left, count = DELIVERIES.unpack_from(payload)
                self._received += count
                end = DELIVERIES.size + count * ID.size
                body = payload[end:]
                entry = (number, now + (left & _LEFT) / 1000, body, left > _LEFT)
                by_id = self._by_id
                for id in frames.ids(payload[DELIVERIES.size : end]):
                    inbox = by_id.get(id)
                    if inbox is not None:
                        self._put(inbox, entry)
            else:
                self._take(kind, payload)
        if given:
            # The hub has to know before anybody has the message: else, if this process dies,
            # another one would get it, too.
            self.flush()
            for demand, handed in given:
                if not self._is_connected:  # the hub does not know: whose it is, is seen later
                    self._held.pop(handed.id, None)
                    demand.stranded = handed
                    self._demands[demand.id] = demand
                else:
                    demand.future.set_result(handed)

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == Kind.REFUSED and not self._is_greeted:
            self._refusal = payload[1:].decode()
            self._lose(self._refusal)
        elif kind == Kind.REFUSED:
            self._requests.answered().fail(Refusal(payload[0], payload[1:].decode()))
        elif kind == Kind.RESULT:
            self._requests.answered().succeed(payload)
        elif kind == Kind.WELCOME:
            self._greeted(payload)
        elif kind == Kind.QUIESCE:
            self._quiesce()
        elif kind == Kind.FLUSHED:
            self._client.forget_memberships()
            for inbox in self._inboxes.values():
                inbox.entries.clear()
            self._renew()
            self._emit(pack(Kind.CLEARED))
        elif kind == Kind.CLEAN:
            _wake(self._flushes.popleft())
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _renew(self) -> None:
        """Listen anew to everything, under new ids."""
        self._emit_taken()
        stale = list(self._by_id)
        self._by_id.clear()
        if stale:
            self._emit(pack_ids(Kind.UNLISTEN, stale))
        for inbox in self._inboxes.values():
            inbox.entries.clear()
            self._listen(inbox)

    def _quiesce(self) -> None:
        """Say nothing more, until there is a new connection: to the next hub, or to this one."""
        self._emit_taken()
        self._emit(pack(Kind.QUIET))  # in one write with what was taken: both arrive, or neither
        self.flush()
        self.ready = False
        self._lost_at = self.loop.time()

    def _put(self, inbox: Inbox, entry: Entry) -> None:
        number = entry[0]
        if number and number <= inbox.last:  # it was taken before the connection broke
            self._taken.append(inbox.id)
            self._schedule()
            return
        inbox.entries.append(entry)
        if inbox.waiters:
            inbox.wake()
        elif not self._sweeping:
            self._sweeping = True
            self.loop.call_later(_SWEEP, self._sweep)

    def _give(self, payload: bytes, now: float, given: list[tuple[Demand, Handed]]) -> None:
        number, left, id, born, sent, attempts = HANDED.unpack_from(payload)
        demand = self._demands.pop(id, None)
        if demand is None:
            return  # UNLISTEN is on its way
        if demand.future.done():
            self._emit(pack_ids(Kind.UNLISTEN, [id]))
            return
        body = payload[HANDED.size :]
        deadline = now + left / 1000
        waited = max(0.0, sent - born)
        handed = Handed(
            self._epoch, demand.name, id, number, deadline, born, waited, attempts, body
        )
        if demand.hold:
            handed.held = True
            self._held[id] = handed
            self._emit(pack_ids(Kind.HELD, [id]))
        else:
            self._taken.append(id)
        given.append((demand, handed))

    def _tell_taken(self) -> None:
        self._telling = False
        if self._taken and not self._scheduled:
            self.flush()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.flush)

    def _sweep(self) -> None:
        """Drop what was not taken in time."""
        self._sweeping = False
        now = time.monotonic()
        expired = []
        left = False
        for inbox in self._inboxes.values():
            while inbox.entries and inbox.entries[0][1] <= now:
                if inbox.entries.popleft()[0] != _ORPHAN:
                    expired.append(inbox.id)
            left = left or bool(inbox.entries)
        if expired and self.ready:
            self._emit_taken()
            self._emit(pack_ids(Kind.EXPIRED, expired))
        if left:
            self._sweeping = True
            self.loop.call_later(_SWEEP, self._sweep)

    # Receiving from a channel with "!"

    async def receive_own(self, name: bytes) -> bytes:
        """Return the next message of a channel of this process."""
        inbox = self._inboxes.get(name)
        if inbox is None:
            self._client.claim(name, self)
            inbox = self._inboxes[name] = Inbox(name, self._client.is_bound(name))
            if self.ready:
                self._listen(inbox)
            else:
                self.connect()
        inbox.in_hand = None
        while True:
            entries = inbox.entries
            if entries and not (inbox.is_bound and _is_for_the_next(name)):
                number, deadline, body, crowded = entries.popleft()
                if number > inbox.last:
                    inbox.last = number
                if deadline <= time.monotonic():
                    if self.ready and number != _ORPHAN:
                        self._emit_taken()
                        self._emit(pack_ids(Kind.EXPIRED, [inbox.id]))
                    continue
                if self.ready and number != _ORPHAN:
                    self._taken.append(inbox.id)
                    if crowded or inbox.is_bound or len(self._taken) > _MAX_TAKEN:
                        self._schedule()
                    elif not self._telling:
                        self._telling = True
                        self.loop.call_later(_DELAY, self._tell_taken)
                inbox.in_hand = (deadline, body)
                return body
            waiter: asyncio.Future[None] = self.loop.create_future()
            inbox.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    inbox.waiters.remove(waiter)
                if inbox.waiters:
                    if inbox.entries:
                        inbox.wake()
                elif self._inboxes.get(name) is inbox:
                    self._client.let_go(name, self)
                raise

    def _listen(self, inbox: Inbox) -> None:
        inbox.id = self._new_id()
        self._by_id[inbox.id] = inbox
        self._emit(pack(Kind.LISTEN, ID.pack(inbox.id) + inbox.name))

    def _new_id(self) -> int:
        self._id = self._id % _MAX_ID + 1
        while self._id in self._by_id or self._id in self._demands or self._id in self._held:
            self._id = self._id % _MAX_ID + 1
        return self._id

    def unlisten(self, name: bytes) -> Inbox | None:
        """Let go of a channel: what was not taken is the hub's again."""
        inbox = self._inboxes.pop(name, None)
        if inbox is None:
            return None
        self._by_id.pop(inbox.id, None)
        if self.ready:
            self._emit_taken()
            self._emit(pack_ids(Kind.UNLISTEN, [inbox.id]))
        return inbox

    def is_idle(self, name: bytes) -> bool:
        """Say whether it listens to a channel, and nobody waits for what comes."""
        inbox = self._inboxes.get(name)
        return inbox is not None and not inbox.waiters

    def park(self, connection: bytes, name: bytes, in_hand: bool = True) -> None:
        """Leave a channel to the process that its client goes to.

        `in_hand`: so is the message that was taken last, unless another one was asked for since.
        """
        inbox = self._inboxes.pop(name, None)
        id, left, last, body = 0, 0, 0, b""
        if inbox is not None:
            self._by_id.pop(inbox.id, None)
            id, last = inbox.id, inbox.last
            if in_hand and inbox.in_hand is not None:
                deadline, body = inbox.in_hand
                left = max(0, min(int((deadline - time.monotonic()) * 1000), MAX_MILLISECONDS))
        self._emit_taken()
        # With the last number: while there is no connection the hub does not learn what was taken.
        head = string(connection) + string(name) + PARKED.pack(id, left, last)
        frame = pack(Kind.PARK, head + (body if left else b""))
        self.send_or_defer(frame)
        was_ready = self.ready
        self.flush()
        if was_ready and not self._is_connected:  # it is as if the hub was gone before
            self._deferred.append(frame)

    def release(self, name: bytes) -> None:
        """Let another loop of this process receive from a channel. In this loop's thread."""
        inbox = self.unlisten(name)
        self.flush()
        if inbox is not None:
            for waiter in inbox.waiters:
                _fail(waiter, RuntimeError("another event loop receives from this channel by now"))

    # Receiving from an ordinary channel

    async def receive_any(self, name: bytes, hold: bool = False) -> Handed:
        """Return the next message of an ordinary channel.

        With `hold` the hub keeps it, too, until `settle` is called.
        """
        demand = Demand(name, hold, self.loop.create_future())
        if self.ready:
            self._demand(demand)
        else:
            self._number(demand)
            self.connect()
        try:
            return await demand.future
        except asyncio.CancelledError:
            future = demand.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.settle(future.result(), returned=True, failed=False)
            elif self._demands.pop(demand.id, None) is not None and self.ready:
                self._emit(pack_ids(Kind.UNLISTEN, [demand.id]))
            self.flush()
            raise

    def settle(self, handed: Handed, returned: bool, failed: bool) -> None:
        """Say what became of a message: it is dealt with, or goes back to the head of its queue."""
        if self.closed or not (returned or handed.held):
            return
        if not self.ready:
            self._settled.append((handed, returned, failed))
            self.connect()
        elif not handed.held or handed.epoch != self._epoch:
            if returned:
                self._return(handed, failed)
        elif self._held.pop(handed.id, None) is not None:
            if not returned:
                self._taken.append(handed.id)
                self._schedule()
                return
            self._emit(pack_ids(Kind.FAILED if failed else Kind.GIVE_BACK, [handed.id]))
            self.flush()
            if not self._is_connected:  # it is as if the hub was gone before
                self._held[handed.id] = handed
                self._settled.append((handed, returned, failed))

    def _return(self, handed: Handed, failed: bool) -> None:
        left = max(0, min(int((handed.deadline - time.monotonic()) * 1000), MAX_MILLISECONDS))
        number = handed.number if handed.epoch == self._epoch else 0
        head = RETURNED.pack(number, left, handed.born, handed.attempts + failed)
        self._emit(pack(Kind.RETURN, head + string(handed.name) + handed.body))
        self.flush()
        if not self._is_connected:
            self._settled.append((handed, True, failed))

    def _number(self, demand: Demand) -> None:
        demand.id = self._new_id()
        self._demands[demand.id] = demand

    def _demand(self, demand: Demand) -> None:
        self._number(demand)
        self._emit(pack(Kind.LISTEN, ID.pack(demand.id) + demand.name))

    # What was answered

    @staticmethod
    def explain(refusal: Refusal) -> HubError:
        """Return the exception for a refusal that is not about a full channel."""
        return HubError(f"the hub refused: {refusal}")

    @staticmethod
    def is_full(refusal: Refusal) -> bool:
        """Say whether a channel was full."""
        return refusal.reason == Reason.FULL


def _is_for_the_next(name: bytes) -> bool:
    """Whether the app that asks was told to leave: what comes is for the next worker."""
    connection = current_connection.get()
    return connection is not None and connection.holds_back(name.decode())


def _wake(waiter: "asyncio.Future[Any]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(waiter: "asyncio.Future[Any]", error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)


async def _until_shutdown(link: "weakref.ref[Link]") -> AsyncGenerator[None, None]:
    """Wait for the end of the event loop: it closes all asynchronous generators then."""
    try:
        yield
    finally:
        found = link()
        if found is not None:
            found._end = None  # it is this one
            found.close()


def _step(awaitable: Awaitable[None]) -> None:
    """Run what does not wait, without a task."""
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        awaitable.__await__().__next__()
