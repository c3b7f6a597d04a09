"""The stay of one WebSocket at the app of this process: what docs/handover.md promises.

The same semantics as in relay mode, over the server's own receive() and send().
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chansup.carry.arena import Slot
from chansup.carry.connection import Connection as Carried
from chansup.carry.handshake import Record
from chansup.carry.hosts import Arrival, StayHost
from chansup.carry.said import Said
from chansup.carry.views import Phase
from chansup.handover import words
from chansup.handover.errors import says_that_client_left
from chansup.handover.extension import CHECKPOINT, EXTENSION, POLICY
from chansup.handover.parting import SERVICE_RESTART, Parting
from chansup.handover.standing import Standing
from chansup.protocol.connection import Connection
from chansup.protocol.connection import connection as current_connection
from chansup.protocol.sessions import WORDS, word_of
from chansup.waiters import Waiters

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ABNORMAL = 1006  # RFC 6455, section 7.4
_CLOSE_PATIENCE = 1.0  # seconds that a client has to answer a close frame
_POLICY_VIOLATION = 1008
_GOODBYE = {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "handover"}
_RESTART = {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "service restart"}


class _Receivers:
    """The tasks of the app that wait for an event, in the server or here."""

    __slots__ = ("_stay",)

    def __init__(self, stay: "Stay") -> None:
        self._stay = stay

    def __len__(self) -> int:
        return self._stay.receivers + len(self._stay.waiters)

    def wake_all(self) -> None:
        self._stay.look_whether_to_leave()


class Stay:
    """One WebSocket and its app in this process."""

    __slots__ = (
        "_again", "_carried", "_connection", "_host", "_inbound", "_is_closing", "_loop",
        "_parting", "_receive", "_refusal", "_said", "_send", "_standing", "_subprotocol",
        "_tasks", "accepted", "arrival", "receivers", "scope", "waiters",
    )  # fmt: skip

    def __init__(
        self,
        host: StayHost,
        carried: Carried,
        arrival: Arrival | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._host = host
        self._carried = carried
        self._inbound = carried.inbound
        self._loop = loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self.arrival = arrival
        record = carried.record
        self._standing = Standing(Connection(host.new_id() if record is None else record.id))
        self._connection = self._standing.connection
        self.receivers = 0  # tasks that wait in the server's receive()
        self.waiters = Waiters()  # those that wait here
        self._parting = Parting(
            loop, self._standing, _Receivers(self), lambda: host.hurries, _nothing
        )
        self._standing.connection.on_ask = self._parting.layer_is_asked
        self._said = Said(None, 0) if arrival is None else Said(arrival.checkpoint, arrival.word)
        self._again = arrival is not None and arrival.is_again
        self._subprotocol: str | None = None
        self._refusal = 0  # the app's own code
        self._is_closing = False  # the drain closes it with 1012
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = False
        self.scope = {
            **scope,
            "extensions": {
                **(scope.get("extensions") or {}),
                EXTENSION: _handover(arrival, self._said),
            },
        }
        carried.stay = self

    async def run(self, application: Application) -> None:
        """Run the app for this WebSocket."""
        standing, books = self._standing, self._host.books
        self._parting.task = asyncio.current_task()
        current_connection.set(standing.connection)
        books.came(self)
        try:
            await application(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            standing.depart()
            if not books.is_cut and not standing.goodbye:
                raise
        except BaseException as error:
            standing.code = standing.code or 1011
            if not standing.goodbye or not says_that_client_left(error):
                raise
        finally:
            self._end()

    def _end(self) -> None:
        standing, books = self._standing, self._host.books
        if standing.goodbye or (books.is_cut and standing.leaving):
            standing.depart()
        _call(self._loop, standing.connection.farewells)
        standing.connection.on_ask = None
        standing.returned = True
        moves = standing.leaving and (standing.goodbye or books.is_cut)
        if self._carried.phase is Phase.LEAVING:
            if moves:
                if standing.in_hand and not books.is_cut:
                    self._inbound.handle()
                self._carried.part()
            else:
                self._carried.stay_after_all()
        moved = self._carried.phase is Phase.PARKING
        self.waiters.wake_all()
        books.went(self, self.accepted, standing.code, moved)

    # What the app is given

    async def receive(self) -> Message:
        """Return the next event for the app."""
        standing = self._standing
        connection = self._connection
        connection.is_answering = False
        if standing.in_hand:
            standing.in_hand = 0
            self._inbound.handle()
            if self._again:
                self._again = False
                self._host.settled(self._carried)
        if connection.takes or connection.welcomes:
            self._tell_layer(connection)
        if standing.leaving or self._is_closing:
            return await self._goodbye()
        self.receivers += 1
        try:
            event = await self._receive()
        finally:
            self.receivers -= 1
        if event["type"] == "websocket.receive":
            if standing.leaving:
                return await self._goodbye()  # another process's app gets it
            self._inbound.take()
            standing.in_hand = 1
            connection.is_answering = True
            if self._again:
                event["chansup.redelivered"] = True
            return event
        return await self._take_other(event)

    def _tell_layer(self, connection: Connection) -> None:
        """Tell the channel layer that the app asks for its client's next message."""
        connection.asks_client()
        if self.accepted:
            _call(self._loop, connection.welcomes)

    async def _take_other(self, event: Message) -> Message:
        standing = self._standing
        if event["type"] == "websocket.disconnect":
            if standing.leaving or self._is_closing:
                return await self._goodbye()
            standing.left_with = event.get("code") or 1005
            standing.code = standing.code or standing.left_with
        else:
            standing.connection.is_answering = True
        return event

    async def _goodbye(self) -> Message:
        """Wait until the app is to leave, and return how it is told."""
        standing = self._standing
        while True:
            if standing.left_with is not None:
                return {"type": "websocket.disconnect", "code": standing.left_with}
            if self._is_closing:
                await asyncio.sleep(0)  # an app that ends now would have it closed without a code
                return dict(_RESTART)
            if standing.leaving and self._parting.is_due():
                return dict(_GOODBYE)
            await self.waiters.wait(self._loop)

    def look_whether_to_leave(self) -> None:
        """Have those who wait for an event told, if it is time."""
        self.waiters.wake_all()
        if self.receivers and self._parting.is_due():
            self._carried.interrupt()

    # What it sends

    def send(self, message: Message) -> Awaitable[None]:
        """Take an event from the app."""
        kind = message["type"]
        if kind == "websocket.send":
            standing = self._standing
            if not (standing.goodbye or self._is_closing or standing.returned):
                return self._send(message)
        return self._send_other(kind, message)

    async def _send_other(self, kind: str, message: Message) -> None:
        standing = self._standing
        if kind == CHECKPOINT:
            self._expect_no_end()
            self._said.store(message["checkpoint"])
            return
        if kind == POLICY:
            self._expect_no_end()
            self._said.say(words.policy(message))
            return
        if standing.goodbye or standing.returned:
            raise standing.disconnected()
        if self._is_closing:
            return
        if kind == "websocket.accept":
            message = self._accept(message)
        elif kind == "websocket.close":
            self._close(message)
        await self._send(message)

    def _accept(self, message: Message) -> Message:
        if message.get("headers"):
            word, headers = word_of(list(message["headers"]))
            message = {**message, "headers": headers}
            if word is not None:
                self._said.say(WORDS.index(word) + 1)
        self._subprotocol = message.get("subprotocol")
        if not self.accepted:
            self.accepted = True
            self._host.books.accepted(is_new=self.arrival is None)
        return message

    def _close(self, message: Message) -> None:
        code = message.get("code") or 1000
        if self.accepted:
            self._standing.code = self._standing.code or code
            self._standing.closed = True
        elif 3000 <= code < 5000:
            self._refusal = code

    def _expect_no_end(self) -> None:
        """Raise if the client or the app is gone: the next app gets nothing."""
        standing = self._standing
        if standing.left_with is not None or standing.returned:
            raise standing.disconnected()

    # What the connection asks

    def record(self, request: bytes, answer: list[bytes]) -> Record:
        """Return what another process needs to continue."""
        scope = self.scope
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        if self._subprotocol is None:
            spoken = tuple(scope.get("subprotocols") or ())
        else:
            spoken = (self._subprotocol,)
        return Record(
            self._standing.connection.id,
            request,
            answer,
            scope["path"],
            scope.get("query_string", b""),
            host,
            spoken,
        )

    def keep(self, slot: Slot) -> None:
        """Write what the app said about handovers so far into the slot, and what it says later."""
        self._said.keep(slot)

    def keep_no_more(self) -> None:
        """Drop what the app says about handovers from now on."""
        self._said.keep_no_more()

    def refusal(self) -> int:
        """Return the close code of an app that has refused a repeated handshake.

        A ticket in the URL may be good for one handshake only: its client comes back with another.
        """
        if self._standing.code == 1011:
            return 1011
        record = self._carried.record
        has_ticket = record is not None and bool(record.query)
        return self._refusal or (SERVICE_RESTART if has_ticket else _POLICY_VIOLATION)

    def lost(self) -> None:
        """Take notice that the client is gone."""
        standing = self._standing
        if standing.left_with is None:
            standing.left_with = ABNORMAL
            standing.code = standing.code or ABNORMAL
        self.waiters.wake_all()

    # What the drain asks

    @property
    def moves(self) -> bool:
        """Whether another process may continue with it."""
        return self._carried.may_move and self._host.moves(self)

    @property
    def is_suspect(self) -> bool:
        """Whether the app has yet to deal with a message that was given again."""
        return self._again

    @property
    def word(self) -> int:
        """What the app said about handovers: a place in WORDS, plus 1; 0: nothing."""
        return self._said.word

    def close(self) -> None:
        """Have it continue in another process, or have its client come back elsewhere."""
        standing = self._standing
        if standing.leaving or self._is_closing or standing.returned or standing.closed:
            return
        if self.moves:
            self._carried.leave()
            self._parting.begin(for_good=False)
        elif standing.left_with is None and not standing.code:
            self._is_closing = True
            standing.code = SERVICE_RESTART
            task = self._loop.create_task(
                _close_for_restart(self._carried, self._send, self.waiters.wake_all)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def hurry(self) -> None:
        """Take notice that time is nearly up: it leaves, whatever its app is busy with."""
        self._parting.hurry()


def _handover(arrival: Arrival | None, said: Said) -> dict[str, Any]:
    """Return what the app is told of handovers."""
    return {
        "count": 0 if arrival is None else arrival.count,
        "reason": None if arrival is None else arrival.reason,
        "checkpoint": said.checkpoint,
    }


async def _close_for_restart(carried: Carried, send: Send, wake: Callable[[], None]) -> None:
    """Close the WebSocket of a client that is to come back; `wake` those who wait at the end."""
    loop = asyncio.get_running_loop()

    def give_up_waiting() -> None:
        wake()
        if carried.raw is None:
            return
        if carried.raw.get_write_buffer_size():
            carried.end()  # a slow client gets what is on its way to it
        else:
            carried.raw.abort()

    impatience = loop.call_later(_CLOSE_PATIENCE, give_up_waiting)
    event = {"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"}
    try:
        await send(event)
    except Exception:
        impatience.cancel()  # the client was quicker
        give_up_waiting()


def _call(loop: asyncio.AbstractEventLoop, told: list[Callable[[], None]]) -> None:
    """Call what the channel layer wants to have called at a moment, once."""
    calls = told.copy()
    told.clear()
    for call in calls:
        try:
            call()
        except Exception as error:  # a defect there must not keep the WebSocket here
            context = {"message": "the channel layer of a WebSocket", "exception": error}
            loop.call_exception_handler(context)


def _nothing() -> None:
    pass
