"""Clients that leave before they are answered, with real frameworks: nothing waits for them."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.running import Running, wait_for

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

POOLS = [
    pool("starlette", websocket=True),
    pool("fastapi"),
    pool("quart"),
    pool("django", "application"),
    pool("bare", timeout=1, websocket=True),
    pool("wsgi"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A site with all frameworks; afterwards nothing may have complained."""
    with site_of(tmp_path_factory.mktemp("site"), *POOLS) as run:
        yield run
        assert "Traceback" not in run.output()


HEAR = ["starlette", "starlette/wrapped", "fastapi", "fastapi/sse", "quart", "django"]
# Not under BaseHTTPMiddleware: there a busy stream never hears of it, with uvicorn alone neither.
# `disconnect_timeout` ends it, as it ends the bare one.
TICK = ["starlette", "fastapi", "fastapi/sse", "quart", "django", "bare"]


@pytest.mark.parametrize("name", [*HEAR, "django/eventstream", "bare"])
def test_as_many_as_there_may_be_leave_idle_streams(site: Running, name: str) -> None:
    come_and_leave(site, f"/{name}/events")
    pool = name.partition("/")[0]
    counter = name if name == "django/eventstream" else pool
    until_nobody_waits(site, counter)


@pytest.mark.parametrize("name", TICK)
def test_as_many_as_there_may_be_leave_busy_streams(site: Running, name: str) -> None:
    come_and_leave(site, f"/{name}/ticks")
    until_nobody_waits(site, name.partition("/")[0])


def test_a_request_needs_no_patience_although_the_apps_heed_nobody(site: Running) -> None:
    for path in ("/bare/events", "/bare/poll", "/bare/events"):
        clients = [call(site, path) for _ in range(CONCURRENCY)]
        wait_for(lambda: in_hand(site) >= CONCURRENCY)
        for client in clients:
            client.close()
        began = time.monotonic()
        hear(site, "/bare/count")
        assert time.monotonic() - began < 1  # disconnect_timeout, and nobody waits for it
    until_nobody_waits(site, "bare")
    assert "disconnect_timeout" in site.output()


@pytest.mark.thorough
def test_half_closed_clients(site: Running) -> None:
    """What a server takes for the end of its client is one for the app."""
    clients = [call(site, "/starlette/events") for _ in range(CONCURRENCY)]
    for client in clients:
        stays_until_it_hears(client)
        client.shutdown(socket.SHUT_WR)
    until_nobody_waits(site, "starlette")
    for client in clients:
        client.close()


@pytest.mark.parametrize("name", ["starlette", "fastapi", "quart", "django"])
def test_uploads_that_are_cut_in_the_middle(site: Running, name: str) -> None:
    lines = ("Content-Length: 100", "Content-Type: application/json")
    clients = [call(site, f"/{name}/reads", *lines, method="POST") for _ in range(2 * CONCURRENCY)]
    for client in clients:
        client.sendall(b'{"half": 1')
    for client in clients:
        client.close()
    until_nobody_waits(site, name)


def test_what_the_app_does_after_its_answer_is_done_although_nobody_reads_it(site: Running) -> None:
    with closing(call(site, "/starlette/late")):
        wait_for(lambda: hear(site, "/starlette/count") == "1")
    wait_for(lambda: hear(site, "/starlette/report") == "afterwards")


def test_views_in_threads(site: Running) -> None:
    for _ in range(3):
        clients = [call(site, "/django/slow") for _ in range(CONCURRENCY)]
        wait_for(lambda: in_hand(site, "django") == CONCURRENCY, patience=5)
        for client in clients:
            client.close()
    until_nobody_waits(site, "django")


def test_a_wsgi_app_makes_nothing_more_for_clients_that_left(site: Running) -> None:
    for _ in range(3):  # as many as its threads, each time
        come_and_leave(site, "/wsgi/ticks", 4)
        until_nobody_waits(site, "wsgi")


def test_a_wsgi_app_does_not_take_half_an_upload_for_a_whole_one(site: Running) -> None:
    clients = [call(site, "/wsgi/reads", "Content-Length: 100", method="POST") for _ in range(4)]
    for client in clients:
        client.sendall(b"half")
    wait_for(lambda: in_hand(site, "wsgi") == 4)
    for client in clients:
        client.close()
    wait_for(lambda: hear(site, "/wsgi/seen") == ",".join(["ClientDisconnected"] * 4))


@pytest.mark.parametrize("path", ["/bare/connects", "/bare/pushes"])
def test_websockets_whose_app_does_not_receive(site: Running, path: str) -> None:
    number = CONCURRENCY - 1  # each has a permit until it is accepted
    clients = [call(site, path, *HANDSHAKE) for _ in range(number)]
    wait_for(lambda: hear(site, "/bare/count") == str(number))
    for client in clients:
        client.close()
    until_nobody_waits(site, "bare")


def test_a_framework_that_raises_when_the_client_of_a_websocket_leaves(site: Running) -> None:
    clients = [call(site, "/starlette/listens", *HANDSHAKE) for _ in range(CONCURRENCY)]
    wait_for(lambda: hear(site, "/starlette/count") == str(CONCURRENCY))
    for client in clients:
        client.close()
    until_nobody_waits(site, "starlette")


@pytest.mark.thorough
def test_clients_that_leave_while_they_wait_are_never_served(tmp_path: Path) -> None:
    one = pool("bare", timeout=60).replace("= 8", "= 1", 1)
    with site_of(tmp_path, one) as run, closing(call(run, "/bare/poll")):
        wait_for(lambda: in_hand(run) == 1)
        lines = ("Content-Length: 20",)
        waiting = [call(run, "/bare/poll", *lines, method="POST") for _ in range(3)]
        waiting += [call(run, "/bare/poll") for _ in range(3)]
        wait_for(lambda: in_queue(run) == 6)
        for client in waiting:
            client.close()
        wait_for(lambda: in_queue(run) == 0, patience=4)  # queue_timeout is 8
        assert in_hand(run) == 1


def in_queue(run: Running) -> int:
    pool = next(one for one in run.status()["pools"] if one["name"] == "bare")
    return int(pool["queue"]["waiting"])


@pytest.mark.thorough
def test_neither_a_reload_nor_the_end_waits_for_apps_whose_clients_left(tmp_path: Path) -> None:
    pools = (pool("bare", timeout=60, websocket=True), pool("wsgi"))
    with site_of(tmp_path, *pools) as run:
        for end in (False, True):
            come_and_leave(run, "/bare/events")
            come_and_leave(run, "/bare/ticks")
            come_and_leave(run, "/wsgi/ticks", 4)
            began = time.monotonic()
            if end:
                assert run.stop() == 0
            else:
                assert run.command("reload").returncode == 0
            assert time.monotonic() - began < 15  # stop_timeout is 25
        assert "Traceback" not in run.output()


@pytest.mark.parametrize("timeout", [60, 0.5], ids=["cut at the end", "cut before"])
@pytest.mark.thorough
def test_threads_that_block_for_clients_that_left_hold_up_no_end(
    tmp_path: Path, timeout: float
) -> None:
    """Python cannot interrupt a thread, and waits for each one before it ends a process."""
    names = ("wsgi", "django", "starlette", "bare")
    pools = [pool(name, "application" if name == "django" else "app", timeout) for name in names]
    with site_of(tmp_path, *pools) as run:
        for name in names:
            with closing(call(run, f"/{name}/blocks")):
                until_somebody_waits(run, name)
        if timeout < 1:
            until_all_are_cut(run, len(names))
        began = time.monotonic()
        assert run.stop() == 0
        assert time.monotonic() - began < 15  # stop_timeout is 25
        assert run.output().count("atexit was called") == len(names)
        assert "killed" not in run.output()
        assert "Traceback" not in run.output()


def until_all_are_cut(run: Running, number: int) -> None:
    wait_for(lambda: run.output().count("disconnect_timeout is how long") == number, patience=9)


def until_somebody_waits(run: Running, name: str) -> None:
    wait_for(lambda: hear(run, f"/{name}/count") != "0", patience=9)
