"""One WebSocket on its way through the relay, from its handshake to its end."""

import asyncio
import time
from collections.abc import Callable

from chansup.protocol import roster
from chansup.relay import scopes
from chansup.relay.interface.answers import EXPLANATIONS, answer
from chansup.relay.interface.client import ABNORMAL, Receive, Send
from chansup.relay.interface.headers import Scope
from chansup.relay.interface.journey import SERVICE_RESTART, Journey
from chansup.relay.interface.pool import Pool, RejectedError, Stay
from chansup.relay.interface.process_counters import ProcessCounters
from chansup.relay.interface.standing import Standing
from chansup.relay.interface.worker import Worker

_REFUSALS: dict[str, tuple[int, str, int | None]] = {  # status, text, Retry-After
    "denied": (500, "Internal Server Error", None),
    "poison": (502, "the process that worked on it died", None),
    "no_worker": (503, EXPLANATIONS["no_worker"], 1),
    "closed": (503, EXPLANATIONS["no_worker"], 1),
    "session": (503, EXPLANATIONS["no_worker"], 1),
}


class WebSocket:
    """A WebSocket, as the relay has it from the server."""

    __slots__ = ("_journey", "_receive", "_send", "_standing")

    def __init__(
        self,
        id: str,
        pool: Pool,
        route: roster.Route,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._receive = receive
        self._send = send
        self._standing = Standing(pool, scope)
        self._journey = Journey(id, self._standing, route, receive, send)

    @property
    def accepted(self) -> bool:
        """Whether the client has its accept."""
        return self._standing.accepted

    async def run(self, process_counters: ProcessCounters) -> None:
        """Bring it to a worker, and pass on what the workers say."""
        process_counters.came(self)
        self._journey.count_in(process_counters)
        try:
            await self._run()
        except asyncio.CancelledError:
            if not process_counters.in_flight.is_cut:
                raise
        finally:
            process_counters.went(self, self._standing.accepted, self._standing.code)

    async def _run(self) -> None:
        message = await self._receive()
        if message["type"] != "websocket.connect":
            return
        arrived = time.monotonic()
        standing, journey = self._standing, self._journey
        assert standing.scope is not None
        try:
            standing.scope_bytes = scopes.encode_websocket(standing.scope, arrived)
        except scopes.ScopeError:
            await self._answer(400, "the handshake cannot be relayed")
            return
        if len(standing.scope_bytes) > scopes.MAX_SCOPE:
            await self._answer(431, "the header fields are too large")
            return
        client = journey.passage.client
        client.begin_to_read()
        try:
            try:
                worker = await self._find_worker(arrived)
            except RejectedError as rejected:
                if standing.left_with is None:
                    await self._answer(503, EXPLANATIONS[rejected.reason], 1)
                return
            standing.hold_permit(worker)
            journey.attach(worker)
            await client.write()
            if journey.refusal is not None:
                await self._answer(*_REFUSALS[journey.refusal])
        finally:
            self._finish()

    async def _find_worker(self, arrived: float) -> Worker:
        standing, journey = self._standing, self._journey
        while True:
            pool = standing.pool
            try:
                stay = Stay.FIXED if journey.is_fixed else Stay.MOVABLE
                assert standing.scope is not None
                session = pool.affinity.session(standing.scope)
                worker = pool.worker_at_once(stay, session)
                worker = worker or await pool.worker(arrived, standing, stay=stay, session=session)
                if session is not None:
                    session.begun(pool.counters)
                return worker
            except RejectedError as rejected:
                place = pool.place_of("websocket", *standing.host_and_path())
                if rejected.reason != "no_route" or place is None or place[0] is pool:
                    raise
                standing.pool, route = place
                journey.follow(route)

    async def _answer(self, status: int, text: str, retry_after: int | None = None) -> None:
        assert self._standing.scope is not None
        await answer(self._standing.scope, self._send, status, text, retry_after)

    def _finish(self) -> None:
        """Leave nothing behind, however it ended."""
        standing, passage = self._standing, self._journey.passage
        passage.client.end_reading()
        if not standing.is_over:
            if standing.left_with is None:
                standing.tell_disconnect(ABNORMAL, b"")
            self._journey.end("left")
        passage.finish()
        standing.release_permit()

    # Orders

    @property
    def moves(self) -> bool:
        """Say no: the relay that holds it ends."""
        return False

    def close(self) -> None:
        """Have the client come back elsewhere: this process ends."""
        if self._standing.is_open_for_client:
            self._standing.tell_disconnect(SERVICE_RESTART, b"service restart")
            self._journey.end("left", SERVICE_RESTART, "service restart")

    def move(self, on_moved: Callable[[str], None]) -> str:
        """Go to another worker though its own stays. Say "begun", or why that cannot be.

        `on_moved` is called with the result, one of `relay_board.HANDOVERS`.
        """
        return self._journey.move(on_moved)
