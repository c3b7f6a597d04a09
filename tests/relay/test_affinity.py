"""How the value of a session is found in requests, and learned from responses."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.relay.both_sides import Interface, relayed

pytestmark = pytest.mark.slow  # the interpreter makes no difference


def request(query: bytes = b"", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "query_string": query, "root_path": "",
        "headers": list(headers), "client": ["127.0.0.1", 1], "server": ["127.0.0.1", 80],
    }  # fmt: skip


class Answers:
    """An app that says what it is told to, and counts who was asked."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts = [b""]
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for place, part in enumerate(self.parts):
            more = place < len(self.parts) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})


async def ask(both: Interface, scope: dict[str, Any]) -> None:
    async def receive() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message: Any) -> None:
        pass

    await both(scope, receive, send)


def told() -> Iterator[Any]:
    """Yield the name, what a response says, and the request that then has the value."""
    yield "sid", {"parts": [b'0{"sid":"a-B_1","upgrades":[]}']}, request(b"x=1&sid=a-B_1")
    yield "sid", {"parts": [b'96:0{"sid": "aB1"}']}, request(b"sid=aB1&EIO=3")
    yield "sid", {"parts": [b'___eio[0]("0{\\"sid\\":\\"aB1\\"}");']}, request(b"sid=aB1")
    yield "sid", {"parts": [b'0{"sid":"a1"}', b"more"]}, request(b"sid=a1")
    yield (
        "session_id",
        {"parts": [b"event: endpoint\r\ndata: /messages/?session_id=0af3\r\n\r\n", b": ping"]},
        request(b"session_id=0af3"),
    )
    yield (
        "Mcp-Session-Id",
        {"headers": [(b"mcp-session-id", b"7f")]},
        request(b"", (b"mcp-session-id", b"7f")),
    )
    yield (
        "room",
        {"headers": [(b"set-cookie", b"other=2"), (b"set-cookie", b'room="r1"; Path=/')]},
        request(b"", (b"cookie", b"a=b; room=r1")),
    )
    yield (
        "t",
        {"status": 303, "headers": [(b"location", b"/poll?t=a%2Fb")]},
        request(b"t=a%2Fb"),
    )


def untold() -> Iterator[Any]:
    yield "sid", {"parts": [b'{"other":"a1"}']}
    yield "sid", {"status": 500, "parts": [b'{"sid":"a1"}']}
    yield "sid", {"parts": [b" " * 5000 + b'{"sid":"a1"}']}
    yield "sid", {"headers": [(b"set-cookie", b"sid=; Max-Age=0")]}
    yield "sid", {"headers": [(b"set-cookie", b"xsid=a1")]}


@pytest.mark.parametrize(("name", "response", "later"), list(told()), ids=str)
def test_a_session_stays_with_the_worker_that_told_it(
    name: str, response: dict[str, Any], later: dict[str, Any]
) -> None:
    async def scenario() -> None:
        app = Answers()
        async with relayed(app, workers=3, sticky=name) as both:
            vars(app).update(response)
            await ask(both, request())
            (known,) = [one for one in both.pool.workers.values() if _knows(both, later, one)]
            vars(app).update(vars(Answers()))
            for _ in range(5):
                session = both.pool.affinity.session(later)
                assert session is not None
                worker = both.pool.worker_at_once(session=session)
                assert worker is known
                await ask(both, later)
                worker.release()

    asyncio.run(scenario())


def _knows(both: Interface, scope: dict[str, Any], worker: Any) -> bool:
    session = both.pool.affinity.session(scope)
    assert session is not None and session.value is not None
    found, why = both.pool.affinity.worker_of(session.value)
    return why == "kept" and found is worker


@pytest.mark.parametrize(("name", "response"), list(untold()), ids=str)
def test_what_tells_no_session_teaches_nothing(name: str, response: dict[str, Any]) -> None:
    async def scenario() -> None:
        app = Answers()
        async with relayed(app, workers=2, sticky=name) as both:
            vars(app).update(response)
            await ask(both, request())
            assert both.pool.affinity.worker_of("a1")[1] == "unknown"

    asyncio.run(scenario())


def test_who_waits_for_a_busy_worker_holds_up_nobody_else() -> None:
    async def scenario() -> None:
        app = Answers()
        async with relayed(app, workers=2, sticky="sid", concurrency=1) as both:
            first, second = both.pool.workers.values()
            both.pool.affinity.learn("one", first)
            both.pool.affinity.learn("two", second)
            session = both.pool.affinity.session(request(b"sid=one"))
            taken = both.pool.worker_at_once(session=session)
            assert taken is first
            waits = asyncio.ensure_future(ask(both, request(b"sid=one")))
            await asyncio.sleep(0)
            for scope in (request(b"sid=two"), request(), request(b"sid=two")):
                await asyncio.wait_for(ask(both, scope), 5)
            assert not waits.done()
            taken.release()
            await asyncio.wait_for(waits, 5)

    asyncio.run(scenario())
