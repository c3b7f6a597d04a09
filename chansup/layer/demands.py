"""Who waits for a message of an ordinary channel, and what became of those that came.

A demand asks the hub for one message. The app has it in hand then, and may have the hub keep it
until it is settled: dealt with, or given back. What cannot be said while there is no connection is
said to the next hub, as far as that knows of it.
"""

import asyncio
import contextlib
import time

from chansup.layer.delivery import Handed
from chansup.layer.frames import (
    CLAIM,
    HANDED,
    ID,
    MAX_MILLISECONDS,
    RETURNED,
    Kind,
    pack,
    pack_ids,
    string,
)
from chansup.layer.outbox import Outbox


class Demand:
    """Somebody who waits for one message of an ordinary channel."""

    __slots__ = ("future", "hold", "id", "name", "stranded")

    def __init__(self, name: bytes, hold: bool, future: "asyncio.Future[Handed]") -> None:
        self.name = name
        self.hold = hold  # the hub keeps the message until it was dealt with
        self.future = future
        self.id = 0
        self.stranded: Handed | None = None  # came when the hub could not be told any more


class Demands:
    """The demands of one event loop, and what it has in hand."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.waiting: dict[int, Demand] = {}
        self._given: list[tuple[Demand, Handed]] = []  # in what is read now
        self._held: dict[int, Handed] = {}  # in the hands of the app; the hub keeps them
        self._settled: list[tuple[Handed, bool, bool]] = []  # for when the connection is back
        outbox.keep_free(self.waiting)
        outbox.keep_free(self._held)

    def __bool__(self) -> bool:
        """Whether a connection is needed."""
        return bool(self.waiting or self._held or self._settled)

    async def take(self, name: bytes, hold: bool = False) -> Handed:
        """Return the next message of an ordinary channel.

        With `hold` the hub keeps it, too, until `settle` is called.
        """
        outbox = self._outbox
        demand = Demand(name, hold, outbox.loop.create_future())
        if outbox.ready:
            self._ask(demand)
        else:
            self._number(demand)
            outbox.connect()
        try:
            return await demand.future
        except asyncio.CancelledError:
            future = demand.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._settle(future.result(), returned=True, failed=False)
            elif self.waiting.pop(demand.id, None) is not None and outbox.ready:
                outbox.emit(pack_ids(Kind.UNLISTEN, [demand.id]))
            outbox.flush()
            raise

    def _number(self, demand: Demand) -> None:
        demand.id = self._outbox.new_id()
        self.waiting[demand.id] = demand

    def _ask(self, demand: Demand) -> None:
        self._number(demand)
        self._outbox.emit(pack(Kind.LISTEN, ID.pack(demand.id) + demand.name))

    # What the hub gives

    def give(self, payload: bytes, now: float) -> None:
        """Take what came for a demand. Call `hand_over` when all is read."""
        number, left, id, born, sent, attempts = HANDED.unpack_from(payload)
        outbox = self._outbox
        demand = self.waiting.pop(id, None)
        if demand is None:
            return  # UNLISTEN is on its way
        if demand.future.done():
            outbox.emit(pack_ids(Kind.UNLISTEN, [id]))
            return
        body = payload[HANDED.size :]
        deadline = now + left / 1000
        waited = max(0.0, sent - born)
        handed = Handed(
            outbox.epoch, demand.name, id, number, deadline, born, waited, attempts, body
        )
        if demand.hold:
            handed.held = True
            self._held[id] = handed
            outbox.emit(pack_ids(Kind.HELD, [id]))
        else:
            outbox.taken.append(id)
        self._given.append((demand, handed))

    def hand_over(self) -> None:
        """Give what came to those who wait for it.

        The hub has to know before anybody has the message: else, if this process dies, another one
        would get it, too.
        """
        if not self._given:
            return
        given, self._given = self._given, []
        self._outbox.flush()
        for demand, handed in given:
            if not self._outbox.is_connected:  # the hub does not know: whose it is, is seen later
                self._held.pop(handed.id, None)
                demand.stranded = handed
                self.waiting[demand.id] = demand
            else:
                demand.future.set_result(handed)

    # What becomes of it

    def settle(self, handed: Handed, returned: bool, failed: bool) -> None:
        """Say what became of a message: it is dealt with, or goes back to the head of its queue.

        In any thread. In another one than the event loop's, and when the loop does not run, it is
        said when the loop runs the next time.
        """
        if self._outbox.closed:
            return
        loop = self._outbox.loop
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self._settle(handed, returned, failed)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._settle, handed, returned, failed)

    def _settle(self, handed: Handed, returned: bool, failed: bool) -> None:
        outbox = self._outbox
        if outbox.closed or not (returned or handed.held):
            return
        if not outbox.ready:
            self._settled.append((handed, returned, failed))
            outbox.connect()
        elif not handed.held or handed.epoch != outbox.epoch:
            if returned:
                self._return(handed, failed)
        elif self._held.pop(handed.id, None) is not None:
            if not returned:
                outbox.taken.append(handed.id)
                outbox.schedule()
                return
            outbox.emit(pack_ids(Kind.FAILED if failed else Kind.GIVE_BACK, [handed.id]))
            outbox.flush()
            if not outbox.is_connected:  # it is as if the hub was gone before
                self._held[handed.id] = handed
                self._settled.append((handed, returned, failed))

    def _return(self, handed: Handed, failed: bool) -> None:
        outbox = self._outbox
        left = max(0, min(int((handed.deadline - time.monotonic()) * 1000), MAX_MILLISECONDS))
        number = handed.number if handed.epoch == outbox.epoch else 0
        head = RETURNED.pack(number, left, handed.born, handed.attempts + failed)
        outbox.emit(pack(Kind.RETURN, head + string(handed.name) + handed.body))
        outbox.flush()
        if not outbox.is_connected:
            self._settled.append((handed, True, failed))

    # The connection

    def ask_again(self, same: bool) -> None:
        """Tell the hub of a new connection the messages in hand here, and ask it for the rest.

        `same`: it knows of messages in hand. Another one does not.
        """
        held = list(self._held.values())
        self._held.clear()
        if same:
            for handed in held:
                handed.id = self._outbox.new_id()
                self._held[handed.id] = handed
                claimed = CLAIM.pack(handed.id, handed.number) + handed.name
                self._outbox.emit(pack(Kind.CLAIM, claimed))
        demands = list(self.waiting.values())
        self.waiting.clear()
        for demand in demands:
            stranded, demand.stranded = demand.stranded, None
            if demand.future.done():
                continue
            if stranded is not None and not same:
                demand.future.set_result(stranded)
            else:
                self._ask(demand)

    def settle_rest(self) -> None:
        """Say what could not be said before."""
        settled, self._settled = self._settled, []
        for one in settled:
            self._settle(*one)

    def fail_all(self, error: Exception) -> None:
        """Let everybody who waits know that nothing comes."""
        for demand in self.waiting.values():
            if not demand.future.done():
                demand.future.set_exception(error)

    def clear(self) -> None:
        """Forget everything."""
        self.waiting.clear()
        self._held.clear()
        self._settled.clear()
