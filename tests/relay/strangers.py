"""Those who speak frames, or pretend to: bare sockets for the place of either side."""

import asyncio
import socket
from typing import Any

from chansup.relay import greeting, scopes
from chansup.relay.frames import END, PROTOCOL, Decoder, Frame, Kind, pack, split

HTTP_SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "headers": [],
}
WEBSOCKET_SCOPE = {**HTTP_SCOPE, "type": "websocket", "scheme": "ws"}


def hello(protocol: int = PROTOCOL, name: str = "a stranger") -> bytes:
    payload = greeting.encode(greeting.Hello(protocol, "0", name))
    return pack(Kind.HELLO, 0, 0, 0, payload)


def request(stream: int, flags: int = END, **scope: Any) -> bytes:
    payload = scopes.encode_http({**HTTP_SCOPE, **scope}, 0.0)
    return b"".join(split(Kind.REQUEST, flags, stream, 0, payload))


def opening(stream: int, number: int = 0, **scope: Any) -> bytes:
    fields = scopes.encode_websocket({**WEBSOCKET_SCOPE, **scope}, 0.0)
    payload = scopes.opening(scopes.Resumption("stranger.1"), fields)
    return b"".join(split(Kind.OPEN, 0, stream, number, payload))


def message(stream: int, number: int, text: bytes, flags: int = 4) -> bytes:
    return pack(Kind.MESSAGE, flags, stream, number, text)


def response(stream: int, body: bytes = b"", flags: int = END | 16, status: int = 200) -> bytes:
    head = scopes.encode_head({"status": status, "headers": []}, False)
    return pack(Kind.RESPONSE, flags, stream, len(head), head + body)


def start(stream: int, status: int = 200) -> bytes:
    return pack(Kind.START, 0, stream, 0, scopes.encode_head({"status": status}, False))


def accept(stream: int) -> bytes:
    return pack(Kind.ACCEPT, 0, stream, 0, scopes.encode((None, [])))


class Stranger:
    """One end of a connection, spoken by hand."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.frames: list[Frame] = []
        self._decoder = Decoder()

    async def say(self, *what: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, b"".join(what))
        except OSError:
            pass  # it has had enough already

    async def hear(self, kind: int) -> Frame:
        """Return the next frame of a kind; others are kept."""
        while True:
            for place, frame in enumerate(self.frames):
                if frame[0] == kind:
                    return self.frames.pop(place)
            if not await self._read():
                raise EOFError

    async def _read(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self.socket, 2**18), 10)
        except ConnectionError:
            return False
        self.frames += self._decoder.feed(data)
        return bool(data)

    async def is_turned_away(self) -> bool:
        """Wait until the other side closes. Say whether it does so within 10 seconds."""
        try:
            while await self._read():
                pass
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        self.socket.close()
