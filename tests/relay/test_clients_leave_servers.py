"""Clients that leave, as each server says it: over HTTP/1.1, HTTP/2, and half-closed."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.running import Running, wait_for

from .conformance.http2 import Conversation2
from .visits import (
    CONCURRENCY,
    HANDSHAKE,
    call,
    come_and_leave,
    hear,
    in_hand,
    pool,
    site_of,
    stays_until_it_hears,
    until_nobody_waits,
)

HTTP2 = {"hypercorn", "granian"}


@pytest.fixture(scope="module", params=["uvicorn", "granian", "hypercorn", "daphne"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, str]]:
    """A site, and its server; afterwards nothing may have complained."""
    pytest.importorskip(request.param)
    pools = (pool("starlette", websocket=True), pool("bare", websocket=True))
    with site_of(tmp_path_factory.mktemp("site"), *pools, server=request.param) as run:
        yield run, request.param
        assert "Traceback" not in run.output()


def count(run: Running) -> int:
    return int(hear(run, "/starlette/count"))


def test_streams_and_websockets(served: tuple[Running, str]) -> None:
    site, _ = served
    for _ in range(2):
        come_and_leave(site, "/starlette/events")
        come_and_leave(site, "/starlette/ticks")
        come_and_leave(site, "/bare/events")  # heeds nobody
        assert hear(site, "/bare/count").isdigit()
        clients = [call(site, "/starlette/listens", *HANDSHAKE) for _ in range(CONCURRENCY)]
        wait_for(lambda: count(site) == CONCURRENCY)
        for client in clients:
            client.close()
        until_nobody_waits(site, "starlette")


@pytest.mark.parametrize("path", ["events", "listens"])
def test_half_closed_clients_have_left(served: tuple[Running, str], path: str) -> None:
    """What a server takes for the end of its client is one for the app."""
    site, _ = served
    lines = HANDSHAKE if path == "listens" else ()
    clients = [call(site, f"/starlette/{path}", *lines) for _ in range(CONCURRENCY)]
    for client in clients:
        if path == "events":
            stays_until_it_hears(client)
    wait_for(lambda: in_hand(site, "starlette") == CONCURRENCY or path == "listens")
    wait_for(lambda: path == "events" or count(site) == CONCURRENCY)
    for client in clients:
        client.shutdown(socket.SHUT_WR)
    until_nobody_waits(site, "starlette")
    for client in clients:
        client.close()


@pytest.mark.parametrize("path", ["starlette/events", "starlette/ticks", "bare/events"])
def test_streams_of_http2_that_are_reset(served: tuple[Running, str], path: str) -> None:
    """The connection stays, and everything continues upon it."""
    site, server = served
    if server not in HTTP2:
        pytest.skip("it speaks no HTTP/2")
    name = path.partition("/")[0]
    talk = Conversation2(site.address, path)
    with closing(talk.socket):
        for _ in range(2):
            numbers = [talk.request(f"/{path}") for _ in range(CONCURRENCY)]
            for number in numbers:
                talk.body(number, 1)
            for number in numbers:
                talk.reset(number)
            asked = talk.request(f"/{name}/count")
            talk.finish(asked)
            assert talk.body(asked, 1).isdigit()
    if name == "starlette":
        until_nobody_waits(site, name)


def test_uploads_of_http2_that_are_reset_in_the_middle(served: tuple[Running, str]) -> None:
    site, server = served
    if server not in HTTP2:
        pytest.skip("it speaks no HTTP/2")
    talk = Conversation2(site.address, "reads")
    with closing(talk.socket):
        numbers = [
            talk.request("/starlette/reads", method="POST", end=False) for _ in range(CONCURRENCY)
        ]
        for number in numbers:
            talk.data(number, b"half")
        wait_for(lambda: in_hand(site, "starlette") == CONCURRENCY)
        for number in numbers:
            talk.reset(number)
        asked = talk.request("/starlette/count")
        talk.finish(asked)
    until_nobody_waits(site, "starlette")
