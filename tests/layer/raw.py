"""A client of the hub that says what the test wants it to say."""

import socket

import msgspec

from chansup.layer.frames import Decoder, Frame, Kind, pack
from chansup.layer.greetings import Hello
from chansup.layer.policies import Policy
from tests.layer.hubs import PATIENCE


class Raw:
    """A connection without a link."""

    def __init__(self, path: str, introduced: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._decoder = Decoder()
        self._frames: list[Frame] = []
        if introduced:
            policy = Policy(expiry=60, group_expiry=60, capacity=100)
            hello = Hello(process="raw", policy=policy)
            self.say(pack(Kind.HELLO, msgspec.msgpack.encode(hello)))
            self.wait_for(Kind.WELCOME)

    def say(self, frame: bytes) -> None:
        self._socket.sendall(frame)

    def receive(self) -> bytes:
        """Return one byte, of whatever it is."""
        return self._socket.recv(1)

    def wait_for(self, wanted: int) -> bytes:
        """Return the payload of the next frame of a kind, and forget what came before."""
        while True:
            while self._frames:
                kind, payload = self._frames.pop(0)
                if kind == wanted:
                    return payload
            data = self._socket.recv(65536)
            assert data, "the hub has closed the connection"
            self._frames += self._decoder.feed(data)

    def rest(self) -> list[int]:
        """Return the kinds of what comes until the hub closes the connection."""
        while data := self._socket.recv(65536):
            self._frames += self._decoder.feed(data)
        return [kind for kind, _ in self._frames]

    def close(self) -> None:
        self._socket.close()
