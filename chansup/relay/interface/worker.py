"""One app worker, as the interface sees it: its connection, its permits, its streams."""

import asyncio
import logging
import socket
from collections.abc import Collection
from typing import Protocol, runtime_checkable

from chansup.backoff import delay
from chansup.protocol import relay_board as board
from chansup.protocol import roster
from chansup.relay import greeting
from chansup.relay.credits import Budget
from chansup.relay.frames import FINISHED, MAX_STREAM, Frame, FrameError, Kind, pack
from chansup.relay.greeting import VersionError
from chansup.relay.interface.pool_counters import PoolCounters
from chansup.relay.link import Link

_log = logging.getLogger("chansup.relay")
_GREETING_TIMEOUT = 10.0  # seconds
_RETRY = 0.2  # seconds between attempts to connect to a worker that should be there
_LONGEST_PAUSE = 5.0  # seconds, before another attempt with one that we cannot talk to


class Movable(Protocol):
    """A WebSocket, as its handovers see it."""

    reason: str  # of the handover under way

    def __hash__(self) -> int:
        """Tell it from others: sets and dictionaries hold it."""

    @property
    def moving_from(self) -> "Worker | None":
        """The worker that it is to leave."""

    @property
    def needs_worker(self) -> bool:
        """Whether it looks for a worker."""

    @property
    def is_transparent(self) -> bool:
        """Whether another worker may continue with it."""

    @property
    def is_to_close(self) -> bool:
        """Whether its worker is gone, and no other one may continue with it."""

    @property
    def is_suspect(self) -> bool:
        """Whether so many workers died with it that it is tried alone."""

    def begin_to_move(self, worker: "Worker") -> bool:
        """Say whether it is to leave `worker`, and was not told so before."""

    def leave(self, worker: "Worker") -> None:
        """Ask the app at `worker` to let it go."""

    def follow_routes(self, pool: object) -> bool:
        """Take over what the routes say now. Say whether it is to continue in `pool`."""

    def attach(self, worker: "Worker") -> None:
        """Begin at a worker."""

    def give_up(self, result: str, reason: str) -> None:
        """Close it."""


class Stream(Protocol):
    """Whoever has begun a stream at a worker."""

    @property
    def websocket(self) -> Movable | None:
        """The WebSocket that it was begun for, if it was for one."""

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame. Raises FrameError."""

    def worker_lost(self) -> None:
        """Take notice that the worker is gone."""


@runtime_checkable
class Sticky(Protocol):
    """A stream that may be at a worker because that one knows its session."""

    def knows_worker(self, worker: "Worker") -> bool:
        """Whether it is, and could be elsewhere."""

    def leave(self, worker: "Worker") -> None:
        """Ask another worker, if this one has not begun to answer."""


class WorkerPool(Protocol):
    """The pool, as its workers see it."""

    counters: PoolCounters
    failures: dict[str, int]  # attempts in a row to work with a worker, by its address

    def worker_usable(self, worker: "Worker") -> None:
        """Take notice that a worker answers."""

    def refuses(self, worker: "Worker", reason: str) -> None:
        """Take notice that a worker speaks no version of the relay that this process speaks."""

    def worker_gone(self, worker: "Worker") -> None:
        """Take notice that a worker does not answer any more."""

    def rescue(self, websockets: Collection[Movable]) -> None:
        """Find another worker for the WebSockets of one that is gone."""

    def drains(self, worker: "Worker") -> None:
        """Take everything away from a worker, as soon as there is another one."""

    def look_at(self, worker: "Worker") -> None:
        """Let a draining worker go when nothing is left there."""

    def serve(self) -> None:
        """Give permits that are free to those who wait."""

    def released(self, worker: "Worker") -> None:
        """Take notice that a worker has done with a request."""


class Worker:
    """A process that runs the app. `usable`: it was greeted, and its connection stands."""

    def __init__(
        self,
        pool: WorkerPool,
        listed: roster.Worker,
        hello: greeting.Hello,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.pool = pool
        self.name = listed.name
        self.pid = listed.pid
        self.address = listed.address
        self.generation = listed.generation
        self.loop = loop
        self.draining = False
        self.joining = False  # greeted, but not in its slot yet: it gets nothing
        self.usable = False
        self.granted = 0  # permits
        self.used = 0  # of these
        self.websockets = 0  # that are attached, or on their way
        self.leaves_soon = False  # it is to be replaced
        self._baseline = 0.0  # WebSockets that count as its own here, beside those since then
        self.streams: dict[int, Stream] = {}
        self.budget = Budget()
        self.link: Link | None = None
        self._hello = hello
        self._owed = 0  # permits that go back as soon as they are free
        self._needed = 0  # as the worker knows
        self._asked = False  # the worker was told that something waits
        self._next = 1
        self._closed = False
        self._counted = (0, 0)
        self._connecting: asyncio.Task[None] | None = None

    # What the roster says

    def update(self, listed: roster.Worker, share: float) -> None:
        """Take over what the roster says of it; `share` of all WebSockets are this process's."""
        self.leaves_soon = listed.leaves_soon
        self._baseline = listed.websockets * share - self.websockets

    @property
    def load(self) -> float:
        """How full it is, in WebSockets of this process.

        Other processes fill it, too. Each levels its own share of what all hold.
        """
        return self._baseline + self.websockets

    # The connection

    def connect(self) -> None:
        """Begin to connect."""
        self._connecting = self.loop.create_task(self._connect())

    async def _connect(self) -> None:
        failures = self.pool.failures.get(self.address, 0)
        if failures:
            await asyncio.sleep(delay(failures, _RETRY, cap=_LONGEST_PAUSE, jitter=0))
        while not self._closed:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await self.loop.sock_connect(sock, self.address)
            except OSError:
                sock.close()
                await asyncio.sleep(_RETRY)  # it may end just now; the roster will tell
            except BaseException:
                sock.close()
                raise
            else:
                self.adopt(sock)
                return

    def adopt(self, sock: socket.socket) -> None:
        """Speak to the worker at the other end of `sock`."""
        self.link = Link(sock, self.loop, self._take, self._lost)
        self.link.send_control(pack(Kind.HELLO, 0, 0, 0, greeting.encode(self._hello)))
        self.loop.call_later(_GREETING_TIMEOUT, self._expect_greeting)

    def _expect_greeting(self) -> None:
        if self.link is not None and not self.usable and not self._closed:
            self.link.lose("no greeting came", is_error=True)

    def close(self) -> None:
        """Close the connection. Streams that are left are told."""
        if self._closed:
            return
        self._closed = True
        self.usable = False
        if self._connecting is not None:
            self._connecting.cancel()
        if self.link is not None:
            self.link.flush()
            self.link.close()
        self._abandon()

    def _lost(self, reason: str, is_error: bool) -> None:
        failures = self.pool.failures
        if is_error and not failures.get(self.address):
            _log.error("%s: the connection to it was given up: %s", self.name, reason)
        if is_error or not self.usable:
            failures[self.address] = failures.get(self.address, 0) + 1
        self.usable, self._closed = False, True
        self._abandon()

    def _abandon(self) -> None:
        streams, self.streams = self.streams, {}
        self.count_bytes()
        self.pool.worker_gone(self)
        for stream in streams.values():
            self._tell_lost(stream)
        lost = [one.websocket for one in streams.values() if one.websocket is not None]
        self.pool.rescue(lost)

    def _tell_lost(self, stream: Stream) -> None:
        try:
            stream.worker_lost()
        except Exception as error:  # a defect in one must not keep the others from hearing
            self.loop.call_exception_handler({"message": "a lost worker", "exception": error})

    @property
    def is_awaited(self) -> bool:
        """Whether it is to stay, and has not answered yet; not if it failed to before."""
        begins = not self.usable and not self._closed and not self.pool.failures.get(self.address)
        return begins and not (self.draining or self.joining or self.leaves_soon)

    @property
    def is_closed(self) -> bool:
        """Whether it will not be used again."""
        return self._closed

    # What comes

    def _take(self, frames: list[Frame]) -> None:
        streams = self.streams
        for kind, flags, place, number, payload in frames:
            if place:
                stream = streams.get(place)
                if stream is None:
                    raise FrameError(f"a frame of stream {place}, which is over or never was")
                stream.take(kind, flags, number, payload)
                if kind == Kind.DONE or (flags & FINISHED and kind == Kind.RESPONSE):
                    self._over(place)
                    if self._closed:
                        return  # that was the last one
            else:
                self._take_own(kind, number, payload)

    def _over(self, place: int) -> None:
        """Forget a stream; perhaps it was the last one here."""
        self.streams.pop(place, None)
        if self.draining:
            self.pool.look_at(self)

    def _take_own(self, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.HELLO and not self.usable:
            self._greet(payload)
        elif not self.usable:
            raise FrameError("no greeting: the other side is not an app worker")
        elif kind == Kind.GRANT:
            self.granted += number
            self._needed = max(0, self._needed - number)
            self.pool.serve()
        elif kind == Kind.RECALL:
            self._owed += number
            self._pay()
        elif kind == Kind.DRAINING:
            # The roster that says who takes its place was sent before: it is read first.
            self.loop.call_soon(self.pool.drains, self)
        elif kind == Kind.EXHAUSTED:
            self.pool.counters.add(board.EXHAUSTED + 1, number)
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _greet(self, payload: bytes) -> None:
        try:
            greeting.answer_to(payload, self._hello)
        except VersionError as error:
            self.pool.refuses(self, str(error))
            raise
        self.usable = True
        self.pool.worker_usable(self)

    # Streams and permits

    @property
    def has_permit(self) -> bool:
        """Whether one more request may be begun."""
        return self.used < self.granted

    def begin(self, stream: Stream) -> int:
        """Return the number of a new stream."""
        number = self._next
        while number in self.streams:  # after 2**32 streams, numbers come round
            number = number % MAX_STREAM + 1
        self._next = number % MAX_STREAM + 1
        self.streams[number] = stream
        return number

    def release(self) -> None:
        """Give a permit back to whoever is next."""
        self.used -= 1
        if self._owed:
            self._pay()
        self.pool.released(self)

    def need(self, number: int) -> None:
        """Tell the worker how many requests wait, if it does not know."""
        if self.usable and number > self._needed and self.link is not None:
            self._needed = number
            self._asked = True
            self.link.send_control(pack(Kind.NEED, 0, 0, number))

    def content(self) -> None:
        """Tell the worker that nothing waits any more, if it was told that something does."""
        if self._asked:
            self._asked = False
            self._needed = 0
            if self.usable and self.link is not None:
                self.link.send_control(pack(Kind.NEED, 0, 0, 0))

    def _pay(self) -> None:
        number = min(self._owed, self.granted - self.used)
        if number > 0 and self.link is not None:
            self._owed -= number
            self.granted -= number
            self.link.send_control(pack(Kind.RETURN, 0, 0, number))

    def count_bytes(self) -> None:
        """Add what went over the connection since the last time to the relay board."""
        if self.link is not None:
            out, into = self.link.bytes_out, self.link.bytes_in
            self.pool.counters.add(board.BYTES, out - self._counted[0])
            self.pool.counters.add(board.BYTES + 1, into - self._counted[1])
            self._counted = out, into
