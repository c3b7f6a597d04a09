"""The relay as an ASGI app: what the server of an interface process is given to run."""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from chansup.config import routes
from chansup.protocol import launch, roster
from chansup.protocol.relay_board import RelayBoard
from chansup.protocol.session_table import SessionTable
from chansup.protocol.versions import VersionError
from chansup.relay.greeting import hello
from chansup.relay.interface import error_pages
from chansup.relay.interface.answers import answer
from chansup.relay.interface.headers import host_of
from chansup.relay.interface.orders import Orders
from chansup.relay.interface.pool import Pool
from chansup.relay.interface.pool_counters import PoolCounters
from chansup.relay.interface.process_counters import ProcessCounters
from chansup.relay.interface.reports import Reports
from chansup.relay.interface.request import Request
from chansup.relay.interface.response import BrokenResponseError
from chansup.relay.interface.websocket import WebSocket
from chansup.relay.interface.worker import Worker
from chansup.wire import LineBuffer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Place = tuple[Pool, roster.Route]

_SWEEP = 0.05  # seconds after which it is watched whether the client of a request goes away
_COUNT_INTERVAL = 1.0  # seconds between two looks at how many bytes went by
_NEWS_TIMEOUT = 10.0  # seconds that the first roster may take
_GREETING_TIMEOUT = 5.0  # seconds for the first roster and the first worker, before clients come
_RECONNECT = 0.2  # seconds after which a lost connection to a worker is made again
# uvicorn's words for every handshake that is answered by a response, as ASGI has it.
_DENIED = "ASGI callable returned without completing handshake."
_LOGGERS = ("uvicorn.error", "hypercorn.error", "_granian", "daphne.server")  # of servers
_READ_SIZE = 256 * 1024
_MAX_ROSTER = 64 * 1024 * 1024  # bytes; a worker has a few hundred

_log = logging.getLogger("chansup.relay")


class Relay:
    """One interface process: its pools, and the routes to them. An ASGI app."""

    def __init__(
        self,
        name: str,
        news: socket.socket,
        board: RelayBoard,
        process_counters: ProcessCounters | None = None,
        table: SessionTable | None = None,
    ) -> None:
        """Take the name of the slot, the socket on which the roster is told, and the board."""
        self._process_counters = process_counters or ProcessCounters()
        self.pools: dict[str, Pool] = {}
        self._hello = hello(name)
        self._news = news
        self._reports = Reports(news)
        self._orders = Orders(self._reports)
        self._board = board
        self._table = table or SessionTable()
        self._nowhere = PoolCounters(board.row(0))
        self._routes: routes.Table[Place] = routes.Table(())
        self._needs_host = False
        self._lines = LineBuffer(_MAX_ROSTER)
        self._known = asyncio.Event()  # a roster has come
        self._greeted = asyncio.Event()  # a worker has answered
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: set[Request] = set()
        self._sweeping = False
        self._listed: list[roster.Worker] = []  # in the newest roster
        self._reconnecting = False
        self._token = ""  # of this process: what ids of its WebSockets begin with
        self._websockets = 0  # that came

    def start(self) -> None:
        """Begin to listen to the supervisor. Inside the server's event loop, once."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._token = secrets.token_hex(8)
            self._news.setblocking(False)
            self._loop.add_reader(self._news.fileno(), self._read_news)
            self._loop.call_later(_COUNT_INTERVAL, self._count_bytes)

    @property
    def can_serve(self) -> bool:
        """Whether at least one worker answers."""
        return any(pool.can_serve for pool in self.pools.values())

    # As an ASGI app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have an app worker answer."""
        kind = scope["type"]
        if self._loop is None:
            self.start()
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = self._routes.match("http", self._host(scope), scope["path"])
        if place is None:
            place = await self._awaited_place(scope)
            if place is None:
                await answer(scope, send, 404, "nothing is served here")
                return
        pool, route = place
        request = Request(pool, route.redeliver, scope, receive, send)
        self._requests.add(request)
        if not self._sweeping:
            self._sweep()
        try:
            await request.run()
        except BrokenResponseError as broken:
            _log.warning("%s %s: %s", scope["method"], scope["path"], broken)
            raise
        finally:
            self._requests.discard(request)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = self._routes.match("websocket", self._host(scope), scope["path"])
        if place is None:
            place = await self._awaited_place(scope)
            if place is None:
                await receive()
                await answer(scope, send, 404, "nothing is served here")
                return
        pool, route = place
        self._websockets += 1
        id = f"{self._token}.{self._websockets}"
        websocket = WebSocket(id, pool, route, scope, receive, send)
        self._orders.notice(websocket, scope["headers"])
        try:
            await websocket.run(self._process_counters)
        finally:
            self._orders.forget(websocket)

    def _host(self, scope: Scope) -> bytes | None:
        return host_of(scope["headers"]) if self._needs_host else None

    async def _awaited_place(self, scope: Scope) -> Place | None:
        """Find a route once more when the roster is there; count it where there is none."""
        if not self._known.is_set():
            try:
                await asyncio.wait_for(self._known.wait(), _NEWS_TIMEOUT)
            except TimeoutError:
                pass
            place = self._routes.match(scope["type"], self._host(scope), scope["path"])
            if place is not None:
                return place
        self._nowhere.rejected("no_route")
        return None

    def _sweep(self) -> None:
        assert self._loop is not None
        limit = time.monotonic() - _SWEEP
        for request in self._requests:
            if request.arrived < limit:
                request.watch()
        self._sweeping = bool(self._requests)
        if self._sweeping:
            self._loop.call_later(_SWEEP, self._sweep)

    # The roster

    def _read_news(self) -> None:
        assert self._loop is not None
        try:
            data = self._news.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._news.fileno())  # the supervisor is gone
            return
        if lines := self._lines.lines(data):
            try:
                self.update(roster.decode(lines[-1]))
            except (msgspec.DecodeError, ValueError) as error:
                _log.error("the roster cannot be read: %s", error)

    def update(self, news: roster.Roster) -> None:
        """Take over a roster. Raises ValueError for a route that is none."""
        assert self._loop is not None
        error_pages.pages.use(news.error_pages)
        places: list[tuple[routes.Route, Place]] = []
        for settings in news.pools:
            pool = self.pools.get(settings.name)
            if pool is None:
                counters = PoolCounters(self._board.row(settings.row))
                pool = Pool(settings, counters, self._loop, self, self._table)
                self.pools[settings.name] = pool
            pool.change(settings)
            places.extend((routes.parse(one.route), (pool, one)) for one in settings.routes)
        self._routes = routes.Table(places)
        self._needs_host = any(route.host is not None for route, _ in places)
        self._listed = news.workers
        present = {one.name for one in news.pools}
        for name, pool in self.pools.items():
            if name not in present:
                pool.close_down()
            self._update_workers(pool)
        self._known.set()
        self._orders.follow(news.moves)

    def _update_workers(self, pool: Pool) -> None:
        """Connect to workers that are new, and let go of those that are no more."""
        assert self._loop is not None
        listed = [one for one in self._listed if one.pool == pool.settings.name]
        present = {one.address for one in listed}
        pool.dismissed &= present
        pool.strangers &= present
        some_ready = any(one.state == "ready" for one in listed)
        for one in listed:
            worker = pool.workers.get(one.address)
            unwanted = one.state == "draining" and some_ready  # nothing is to be brought there
            excluded = pool.dismissed | pool.strangers
            if worker is None and (one.address in excluded or unwanted):
                continue
            if worker is None:
                worker = Worker(pool, one, self._hello, self._loop)
                worker.draining = one.state == "draining"
                worker.joining = one.state == "joining"
                pool.workers[one.address] = worker
                worker.connect()
        pool.listed(listed)
        for address, worker in list(pool.workers.items()):
            if address not in present:
                pool.dismiss(worker)

    def greeted(self, worker: Worker, refusal: str = "") -> None:
        """Let the supervisor know that a worker answers, or why it can never be spoken to."""
        if not refusal:
            self._greeted.set()
        self._reports.tell(roster.Greeted(worker.address, refusal))

    async def ask(self, _state: MutableMapping[str, Any]) -> None:
        """Wait until a listed worker answers, for a while: no client comes before.

        A process that can speak to none of them is ended soon, and must not have taken anything.
        """
        self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GREETING_TIMEOUT):
                await self._known.wait()
                if self._listed:
                    await self._greeted.wait()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Answer the server: the app's lifespan runs in the workers."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.ask({})
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def connection_lost(self) -> None:
        """Connect again to workers that are still on the roster, unless it says otherwise soon."""
        assert self._loop is not None
        if not self._reconnecting:
            self._reconnecting = True
            self._loop.call_later(_RECONNECT, self._reconnect)

    def _reconnect(self) -> None:
        self._reconnecting = False
        for pool in self.pools.values():
            self._update_workers(pool)

    def place_of(self, kind: str, host: bytes | None, path: str) -> Place | None:
        """Return where a request ("http") or a WebSocket ("websocket") goes now."""
        return self._routes.match(kind, host, path)

    def _count_bytes(self) -> None:
        assert self._loop is not None
        for pool in self.pools.values():
            for worker in pool.workers.values():
                worker.count_bytes()
        self._loop.call_later(_COUNT_INTERVAL, self._count_bytes)


class _Quiet(logging.Filter):
    """Keeps a server from reporting non-errors, and errors that chansup has reported."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], BrokenResponseError):
            return False
        return record.msg != _DENIED


def create(name: str, inherited: launch.Relay, process_counters: ProcessCounters) -> Relay:
    """Return the relay of an interface process, from what it has inherited."""
    for logger in _LOGGERS:
        logging.getLogger(logger).addFilter(_Quiet())
    news = socket.socket(fileno=inherited.roster_fd)
    try:
        table = SessionTable(inherited.sessions_fd)
    except VersionError as error:
        logging.getLogger("chansup.relay").warning(
            "%s. Until then each interface process has sessions of its own", error
        )
        table = SessionTable()
    return Relay(name, news, RelayBoard(inherited.board_fd), process_counters, table)
