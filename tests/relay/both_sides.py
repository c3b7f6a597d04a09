"""Both sides of the relay in one event loop: interface and app workers, with frames between them.

    async with relayed(app) as both:
        await both(scope, receive, send)

`both` is an ASGI app: what it is given goes through frames over a socket pair to `app`, and back.
"""

import array
import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from chansup.protocol import roster, scoreboard
from chansup.protocol.relay_board import RelayBoard
from chansup.relay import greeting
from chansup.relay.appworker.counters import Counters
from chansup.relay.appworker.server import AppWorker
from chansup.relay.interface.application import Relay
from chansup.relay.interface.pool import Pool
from chansup.relay.interface.worker import Worker

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POOL = {
    "name": "web",
    "row": 1,
    "queue_limit": 100,
    "queue_timeout": 10.0,
    "worker_timeout": 10.0,
    "websocket_timeout": 5.0,
    "handover_rate": 1000.0,
    "drain_spread": 0.1,
    "stop_timeout": 5.0,
}
PATIENCE = 10.0  # seconds


class InHand:
    requests = 0


def app_worker(
    app: App,
    *,
    name: str = "web.0",
    concurrency: int = 10,
    peers: frozenset[int] = frozenset(),
    state: dict[str, Any] | None = None,
    disconnect_timeout: float = PATIENCE,
) -> AppWorker:
    """Return the worker's side. `counters` are in private memory."""
    cells: memoryview[float] = memoryview(array.array("d", bytes(scoreboard.SIZE)))
    hello = greeting.hello(name)
    return AppWorker(
        app,
        Counters(cells, InHand()),
        hello,
        concurrency=concurrency,
        peers=peers,
        state=state,
        disconnect_timeout=disconnect_timeout,
    )


class Interface:
    """The interface's side, and the workers that it was given. An ASGI app."""

    def __init__(self, routes: list[roster.Route] | None = None, **settings: Any) -> None:
        ours, self._news = socket.socketpair()  # no roster ever comes: `update` is called
        self.board = RelayBoard(None)
        self.relay = Relay("interface.0", ours, self.board)
        self.relay.start()
        self.relay.connection_lost = lambda: None  # type: ignore[method-assign]  # no address
        routes = routes or [roster.Route("http"), roster.Route("websocket")]
        self._pool = roster.Pool(**{**POOL, "routes": routes, **settings})
        self.relay.update(roster.Roster([self._pool], []))
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.relay(scope, receive, send)

    @property
    def pool(self) -> Pool:
        return self.relay.pools[self._pool.name]

    @property
    def cells(self) -> "memoryview[float]":
        """The counts of the pool."""
        return self.board.row(self._pool.row)

    def adopt(self, sock: socket.socket) -> Worker:
        """Speak to a worker at the other end of `sock`, which may be anybody."""
        sock.setblocking(False)
        address = f"worker {self._number}"
        name = f"{self._pool.name}.{self._number}"
        self._number += 1
        hello = greeting.hello("interface.0")
        pid = self._number  # each has its own
        listed = roster.Worker(name, self.pool.settings.name, pid, 1, address, "ready")
        worker = Worker(self.pool, listed, hello, asyncio.get_running_loop())
        self.pool.workers[address] = worker
        worker.adopt(sock)
        return worker

    def close(self) -> None:
        for worker in list(self.pool.workers.values()):
            worker.close()
        self._news.close()  # the relay stops to listen, as when the supervisor is gone


class BothSides(Interface):
    """An interface, and app workers that it speaks to. An ASGI app."""

    def __init__(self, app: App, worker_settings: dict[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self._app = app
        self._worker_settings = worker_settings
        self.app_workers: dict[Worker, AppWorker] = {}

    async def add_worker(self) -> Worker:
        """Start one more worker, and wait until it is usable."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        app = app_worker(self._app, name=f"web.{self._number}", **self._worker_settings)
        app.adopt(theirs)
        worker = self.adopt(ours)
        self.app_workers[worker] = app
        await until(lambda: worker.usable and worker.granted > 0)
        return worker

    def kill(self, worker: Worker) -> None:
        """End a worker silently, as SIGKILL would; its app may continue, but nobody hears it."""
        app = self.app_workers.pop(worker)
        app.cutting = True
        for interface in list(app._interfaces):
            interface.link.close()
        app.cut()

    def close(self) -> None:
        super().close()
        for app in self.app_workers.values():
            app.cut()
            app.close()


@contextlib.asynccontextmanager
async def relayed(
    app: App,
    *,
    workers: int = 1,
    concurrency: int = 10,
    state: dict[str, Any] | None = None,
    disconnect_timeout: float = PATIENCE,
    routes: list[roster.Route] | None = None,
    **settings: Any,
) -> AsyncIterator[BothSides]:
    """Yield an ASGI app that goes through frames to `app`. `settings` are those of the pool.

    `state` is what the app's lifespan has left. The lifespan itself is the caller's business.
    """
    worker = {
        "concurrency": concurrency,
        "state": state,
        "disconnect_timeout": disconnect_timeout,
    }
    both = BothSides(app, worker, routes=routes, **settings)
    try:
        for _ in range(workers):
            await both.add_worker()
        yield both
    finally:
        both.close()
        await asyncio.sleep(0)


def through_relay(app: App, **settings: Any) -> App:
    """Wrap `app` so that each request and WebSocket of it goes through a relay of its own.

    For test clients that make an event loop for each request. The lifespan goes to `app` directly;
    ``scope["state"]`` reaches it as that of its worker. What the app raises is raised here, too.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        raised: list[Exception] = []

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except OSError:
                raise
            except Exception as error:
                raised.append(error)
                raise

        outer = {**scope}
        state = outer.pop("state", None)
        async with relayed(watched, state=state, **settings) as both:
            await both(outer, receive, send)
            await both_idle(both)
        if raised:
            raise raised[0]

    return wrapped


async def both_idle(both: BothSides, patience: float = 1.0) -> None:
    """Wait until the apps have returned; those that do not within `patience` are cancelled."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: not any(map(_in_hand, both.app_workers.items())), patience)


def _in_hand(pair: tuple[Worker, AppWorker]) -> int:
    """Count the streams of both sides: an app may continue after its client."""
    worker, app = pair
    return len(worker.streams) + sum(interface.streams for interface in app._interfaces)


async def until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait until something holds. Raises TimeoutError."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.001)
