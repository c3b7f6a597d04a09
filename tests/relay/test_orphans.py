"""Apps whose client has left, at a worker of several interface processes: its permits add up.

Both sides are the real ones, in one event loop. Apps heed nobody; they end when they are told to.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import StreamingResponse

from chansup.relay.appworker.server import AppWorker
from chansup.relay.credits import WINDOW
from tests.relay import both_sides
from tests.relay.both_sides import until
from tests.relay.clients import Client, Request, WebSocket

CONCURRENCY = 2
PLACES = 4 * CONCURRENCY  # of apps that continue without a permit
LONG = 60.0  # seconds
START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.fixture(scope="module", autouse=True)
def notices_soon() -> Iterator[None]:
    """Have the interfaces notice at once when a client leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chansup.relay.interface.application._SWEEP", 0.001)
        yield


class HeedlessApps:
    """Each waits until it is told to end, whatever happens to its client."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []  # of those that run
        self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/quick":
            await send(START)
            await send({"type": "http.response.body", "body": b"quick"})
            return
        gate = asyncio.Event()
        self.gates.append(gate)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.gates.remove(gate)


class Front:
    """One interface process, and its clients."""

    def __init__(self, app: AppWorker) -> None:
        self.interface = both_sides.Interface()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.seen = app.adopt(theirs)
        self.worker = self.interface.adopt(ours)
        self.clients: list[Request] = []

    def arrive(self) -> None:
        """Let a request come."""
        self.clients.append(Request(self.interface, b"", path="/waits"))

    def leave(self) -> None:
        """Let the eldest client go."""
        if self.clients:
            self.clients.pop(0).leave()

    def kill(self) -> None:
        """End it silently, as SIGKILL would."""
        if self.worker.link is not None:
            self.worker.link.close()
        for client in self.clients:
            client.task.cancel()
        self.interface.close()


class Site:
    """A worker, and interface processes that come and go."""

    def __init__(self, disconnect_timeout: float = LONG) -> None:
        self.apps = HeedlessApps()
        self.app = both_sides.app_worker(
            self.apps, concurrency=CONCURRENCY, disconnect_timeout=disconnect_timeout
        )
        self.fronts: list[Front] = []
        self.gone: list[Front] = []

    def join(self) -> None:
        """Let an interface process come."""
        self.fronts.append(Front(self.app))

    def kill(self, number: int) -> None:
        """Kill an interface process, and let another one come for the last."""
        if self.fronts:
            front = self.fronts.pop(number % len(self.fronts))
            front.kill()
            self.gone.append(front)
        if not self.fronts:
            self.join()

    def end_app(self, number: int) -> None:
        """Let an app return, whoever waits for it."""
        if self.apps.gates:
            self.apps.gates[number % len(self.apps.gates)].set()

    def close(self) -> None:
        """End everything."""
        for front in self.fronts:
            front.kill()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        self.app.close()

    # What holds

    def permits(self) -> int:
        """Return how many there are, by the books: what is free, out, or used by the dead."""
        permits = self.app.permits
        held = sum(permits._holders[one].held for one in self.app._interfaces)
        orphans = [*self.app.orphans._with_permit]
        return permits.free + held + sum(one._context._is_gone for one in orphans)  # type: ignore[attr-defined]

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        for _ in range(5):
            await asyncio.sleep(0.002)

    def check(self) -> None:
        """Look at both sides of the books."""
        assert self.permits() == CONCURRENCY
        assert len(self.app.orphans._placed) <= PLACES
        for front in self.fronts:
            worker = front.worker
            assert worker.granted == self.app.permits._holders[front.seen].held
            assert worker.used == len(worker.streams) <= worker.granted

    async def check_capacity(self) -> None:
        """Let all apps return: then as many run at once as may, for whichever process."""
        for front in self.fronts:
            while front.clients:
                front.leave()
        await self.settle()
        while self.apps.gates:
            self.end_app(0)
            await self.settle()
        self.check()
        assert not self.app.orphans._deadlines
        front = self.fronts[-1]
        for _ in range(CONCURRENCY + 1):
            front.arrive()
        await until(lambda: len(self.apps.gates) == CONCURRENCY)
        await self.settle()
        assert len(self.apps.gates) == CONCURRENCY


@contextlib.asynccontextmanager
async def site(fronts: int, **keywords: Any) -> AsyncIterator[Site]:
    made = Site(**keywords)
    try:
        for _ in range(fronts):
            made.join()
        await until(lambda: all(front.worker.usable for front in made.fronts))
        await made.settle()
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


STEPS = st.one_of(
    st.tuples(st.sampled_from(["arrive", "leave"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["arrive", "leave", "end", "kill", "join", "settle"]), st.integers(0, 3)),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(fronts=st.integers(1, 3), steps=st.lists(STEPS, max_size=60))
def test_no_permit_is_lost_or_doubled(fronts: int, steps: list[tuple[str, int]]) -> None:
    async def course() -> None:
        async with site(fronts) as made:
            for step, number in steps:
                front = made.fronts[number % len(made.fronts)]
                if step == "arrive":
                    front.arrive()
                elif step == "leave":
                    front.leave()
                elif step == "end":
                    made.end_app(number)
                elif step == "kill":
                    made.kill(number)
                elif step == "join" and len(made.fronts) < 4:
                    made.join()
                else:
                    await made.settle()
                    made.check()
            await made.settle()
            made.check()
            await made.check_capacity()

    asyncio.run(course())


def play(course: Callable[[Site], Awaitable[None]], fronts: int = 2, **keywords: Any) -> None:
    async def whole() -> None:
        async with site(fronts, **keywords) as made:
            await course(made)

    asyncio.run(whole())


async def come_and_leave(made: Site, front: Front, number: int) -> None:
    """Let so many clients come and go, one after the other, while their apps continue."""
    for _ in range(number):
        await come_and_leave_once(made, front)


async def come_and_leave_once(made: Site, front: Front) -> None:
    running, known = len(made.apps.gates), len(made.app.orphans._deadlines)
    front.arrive()
    await until(lambda: len(made.apps.gates) > running)
    front.leave()
    await until(lambda: len(made.app.orphans._deadlines) > known)
    await made.settle()


def test_more_apps_than_may_go_on_without_a_permit_keep_theirs() -> None:
    async def course(made: Site) -> None:
        one, other = made.fronts
        await come_and_leave(made, one, PLACES // 2)
        await come_and_leave(made, other, PLACES // 2)
        assert (await Request(other.interface, b"", path="/quick").answer())[1] == b"quick"
        await come_and_leave(made, other, CONCURRENCY)
        made.check()
        waiting = Request(one.interface, b"", path="/quick")
        await made.settle()
        assert not waiting.task.done()
        made.end_app(0)  # its place goes to one that gives its permit for it
        assert (await waiting.answer())[1] == b"quick"
        made.check()

    play(course)


@pytest.mark.parametrize("number", [PLACES, PLACES + CONCURRENCY])
def test_an_interface_process_is_killed_while_apps_of_its_clients_go_on(number: int) -> None:
    async def course(made: Site) -> None:
        await come_and_leave(made, made.fronts[0], number)
        made.kill(0)
        await made.settle()
        made.check()
        await made.check_capacity()

    play(course)


def test_an_interface_process_is_killed_with_requests_in_hand() -> None:
    async def course(made: Site) -> None:
        for _ in range(CONCURRENCY):
            made.fronts[0].arrive()
        await until(lambda: len(made.apps.gates) == CONCURRENCY)
        made.kill(0)
        await made.settle()
        made.check()
        assert (await Request(made.fronts[0].interface, b"", path="/quick").answer())[0] == 200
        await made.check_capacity()

    play(course)


def test_what_an_app_sent_that_nobody_took_counts_no_more() -> None:
    """The connection has so many bytes for all its streams."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            with contextlib.suppress(OSError):
                while True:
                    await send({"type": "websocket.send", "bytes": bytes(8000)})
        else:
            await send(START)
            with contextlib.suppress(OSError):
                while True:
                    part = {"type": "http.response.body", "body": bytes(8000), "more_body": True}
                    await send(part)
        await asyncio.Event().wait()

    async def course() -> None:
        async with both_sides.relayed(app, disconnect_timeout=LONG) as both:
            (worker,) = both.app_workers.values()
            (interface,) = worker._interfaces
            clients: list[Client] = [Deaf(both, b""), DeafWebSocket(both)]
            await until(lambda: interface.budget.used > WINDOW)  # more than one of them has
            for client in clients:
                client.leave()  # type: ignore[attr-defined]
            await until(lambda: interface.budget.used == 0)
            assert interface.streams == 2

    asyncio.run(course())


class Deaf(Request):
    """A client that reads nothing."""

    async def _send(self, event: Any) -> None:
        await asyncio.Event().wait()


class DeafWebSocket(WebSocket):
    """One that reads nothing but the acceptance."""

    async def _send(self, event: Any) -> None:
        if event["type"] != "websocket.accept":
            await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["message", "upload"])
@pytest.mark.parametrize("is_draining", [False, True])
def test_a_drain_cuts_off_nothing_in_hand_that_would_be_done_without_it(
    kind: str, is_draining: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chansup.relay.appworker.orphans._GRACE", 0.1)
    begun, done = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await receive()
        begun.set()
        await asyncio.sleep(0.5)
        done.set()

    async def course() -> None:
        async with both_sides.relayed(app, disconnect_timeout=LONG) as both:
            (worker,) = both.app_workers.values()
            client: Any
            if kind == "message":
                client = WebSocket(both)
                client.say("work on this")
            else:
                client = Request(both, b"", method="POST")
            await begun.wait()
            if is_draining:
                worker.orphans.drain()  # before it leaves
            client.leave()
            await until(lambda: not both.pool.workers or worker.orphans._deadlines)
            worker.orphans.drain()
            await worker.orphans.settle(5, 1)
            assert done.is_set()

    asyncio.run(course())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_drain_waits_a_moment_for_streams_of_clients_that_left(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chansup.relay.appworker.orphans._GRACE", 0.1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        await asyncio.Event().wait()

    async def course() -> None:
        async with both_sides.relayed(app, disconnect_timeout=LONG) as both:
            (worker,) = both.app_workers.values()
            client = Request(both, b"", method=method)
            await client.until("http.response.body")
            client.leave()
            await until(lambda: worker.orphans._deadlines)
            worker.orphans.drain()
            async with asyncio.timeout(4):
                await worker.orphans.settle(5, 1)

    asyncio.run(course())


def test_event_streams_of_starlette_without_news_end_with_their_clients() -> None:
    """Starlette listens for the client's end below ASGI 2.4 only; else it waits for send()."""
    count = 3
    ended: list[int] = []

    async def news(number: int) -> AsyncIterator[bytes]:
        yield b"data: hello\n\n"
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(news(len(ended)))(scope, receive, send)

    async def course() -> None:
        async with both_sides.relayed(app, concurrency=count, disconnect_timeout=LONG) as both:
            for round in (1, 2):
                clients = [Request(both, b"") for _ in range(count)]
                for client in clients:
                    await client.until("http.response.body")
                for client in clients:
                    client.leave()
                await until(lambda: len(ended) == count * round)  # noqa: B023 - awaited here

    asyncio.run(course())
