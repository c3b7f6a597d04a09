"""Queues of listening sockets, as the kernel tells them to whoever holds the socket."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chansup.supervisor.sockets import accept_queue

pytestmark = pytest.mark.slow  # the interpreter makes no difference


@pytest.fixture(params=["IPv4", "IPv6", "Unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    places: dict[str, tuple[socket.AddressFamily, Any]] = {
        "IPv4": (socket.AF_INET, ("127.0.0.1", 0)),
        "IPv6": (socket.AF_INET6, ("::1", 0)),
        "Unix": (socket.AF_UNIX, str(tmp_path / "s")),
    }
    family, address = places[request.param]
    with socket.socket(family) as listening:
        listening.bind(address)
        listening.listen(5)
        yield listening


def connect(listener: socket.socket, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.socket(listener.family))
    client.connect(listener.getsockname())
    return client


def test_tells_how_many_wait_and_who(listener: socket.socket) -> None:
    with ExitStack() as stack:
        assert accept_queue.look(listener) == (0, 5)
        assert accept_queue.waiting(listener) == frozenset()
        assert accept_queue.some_wait([listener]) == set()
        for _ in range(3):
            connect(listener, stack)
        assert accept_queue.look(listener) == (3, 5)
        assert accept_queue.some_wait([listener]) == {listener.fileno()}
        waiting = accept_queue.waiting(listener)
        assert waiting is not None
        assert len(waiting) == 3
        assert accept_queue.waiting(listener) == waiting
        accepted, _ = listener.accept()
        stack.enter_context(accepted)
        left = accept_queue.waiting(listener)
        assert left is not None
        assert left < waiting
        assert accept_queue.look(listener) == (2, 5)


def test_who_gave_up_still_waits(listener: socket.socket) -> None:
    with ExitStack() as stack:
        connect(listener, stack).close()
        assert accept_queue.look(listener) == (1, 5)


def test_others_on_the_port_are_not_taken_for_waiting(listener: socket.socket) -> None:
    with ExitStack() as stack:
        connect(listener, stack)
        stack.enter_context(listener.accept()[0])
        assert accept_queue.waiting(listener) == frozenset()
