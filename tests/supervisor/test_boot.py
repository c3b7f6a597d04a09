"""Asking real servers, good and bad ones, whether they are ready."""

import asyncio
import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

from chansup.config.readiness import parse
from chansup.supervisor.process import boot


async def answer(response):
    """Start a server that sends `response` to everybody; return it, its port and what it heard."""
    heard = []

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], heard


async def is_ready(text, seconds=0.4, directory=Path()):
    try:
        await asyncio.wait_for(boot.wait_until_ready(parse(text), directory), seconds)
    except TimeoutError:
        return False
    return True


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_tcp_port_that_opens_late():
    async def main():
        port = free_port()
        waiting = asyncio.create_task(boot.wait_until_ready(parse(f"tcp:{port}")))
        assert not await is_ready(f"tcp:{port}", 0.2)
        assert not waiting.done()
        with socket.create_server(("127.0.0.1", port)):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_a_name_and_a_family():
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert await is_ready(f"tcp:localhost:{port}", 5)
            assert not await is_ready(f"tcp:no-such-host.invalid:{port}")

    asyncio.run(main())


def test_a_connection_to_itself_does_not_count():
    # Where a client happens to get the very port it asks for, TCP connects it to itself.
    async def main():
        port = free_port()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            _, writer = await asyncio.open_connection(sock=sock)
            assert boot._is_connected_to_itself(writer)
            writer.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("response", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", True),
        (b"HTTP/1.1 200\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"HTTP/2 200\r\n", False),
        (b"+PONG\r\n", False),
        (b"HTTP/1.1 2x0 OK\r\n", False),
        (b"", False),
        (b"\r\n\r\n", False),
        (b"x" * 100_000, False),
    ],
)
def test_http(response, ready):
    async def main():
        server, port, heard = await answer(response)
        async with server:
            assert await is_ready(f"http:{port}/health?deep=1") is ready
        assert heard[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\n")
        assert f"Host: 127.0.0.1:{port}\r\n".encode() in heard[0]

    asyncio.run(main())


def test_a_server_that_accepts_and_never_answers(monkeypatch):
    async def main():
        monkeypatch.setattr(boot, "ANSWER_TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            assert not await is_ready(f"http:{port}/")
            silent.settimeout(5)
            for _ in range(2):  # it is asked again
                silent.accept()[0].close()

    asyncio.run(main())


def test_a_unix_socket_relative_to_a_directory():
    async def main():
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / "app.sock").touch()
            assert not await is_ready("unix:app.sock", 0.2, directory)
            (directory / "app.sock").unlink()
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(directory / "app.sock"))
                assert not await is_ready("unix:app.sock", 0.2, directory)
                server.listen()
                assert await is_ready("unix:app.sock", 5, directory)
                assert await is_ready(f"unix:{directory}/app.sock", 5)

    asyncio.run(main())


def test_after_some_time():
    async def main():
        loop = asyncio.get_running_loop()
        before = loop.time()
        await boot.wait_until_ready(parse("after:50ms"))
        assert loop.time() - before >= 0.05

    asyncio.run(main())


def test_what_only_the_process_can_say_is_not_asked():
    assert not asyncio.run(is_ready("notify", 0.1))


def test_asking_is_gentle_and_leaks_nothing():
    async def main():
        server, port, heard = await answer(b"HTTP/1.1 500 no\r\n\r\n")
        async with server:
            await is_ready(f"http:{port}/", 0.1)
            before = len(os.listdir("/proc/self/fd"))
            heard.clear()
            assert not await is_ready(f"http:{port}/", 1.0)
            assert 3 <= len(heard) <= 12
            for _ in range(20):
                assert not await is_ready(f"http:{port}/", 0.01)  # cancelled at any moment
            async with asyncio.timeout(5):
                while len(os.listdir("/proc/self/fd")) > before:
                    await asyncio.sleep(0.005)

    asyncio.run(main())
