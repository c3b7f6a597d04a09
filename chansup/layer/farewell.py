"""What a process has yet to say when it ends in between two hubs.

A channel that was left to another process while the hub was replaced is still the old process's as
far as the new hub knows: it has to hear which messages were taken, or they come twice.
"""

import os
import socket
import time

import msgspec

from chansup.layer.frames import READ_SIZE, Decoder, FrameError, Kind, pack
from chansup.layer.greetings import Welcome, understands
from chansup.unix import credentials

PATIENCE = 2.0  # seconds that the end of a process may take longer


def say(address: str, hello: bytes, words: list[bytes]) -> bool:
    """Send frames that have no answer. Wait until the hub has read them, and say whether it has."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                _limit(sock, deadline)
                try:
                    sock.connect(address)
                except OSError:
                    return False  # while a hub is replaced its socket is there
                if credentials(sock).uid not in (os.geteuid(), 0):
                    return False
                sock.sendall(pack(Kind.HELLO, hello))
                if not _is_welcome(sock, deadline):
                    return False
                _limit(sock, deadline)
                sock.sendall(b"".join(words))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(READ_SIZE):  # a reset if it was closed before all was read
                    _limit(sock, deadline)
                return True
        except TimeoutError:
            return False
        except OSError:
            time.sleep(0.01)  # that was the old hub
        except (FrameError, msgspec.DecodeError):
            return False
    return False


def _is_welcome(sock: socket.socket, deadline: float) -> bool:
    """Wait for the hub's greeting."""
    decoder = Decoder()
    while True:
        _limit(sock, deadline)
        data = sock.recv(READ_SIZE)
        if not data:
            raise ConnectionError("the hub closed the connection")
        for kind, payload in decoder.feed(data):
            if kind != Kind.WELCOME:
                return False
            return understands(msgspec.msgpack.decode(payload, type=Welcome))


def _limit(sock: socket.socket, deadline: float) -> None:
    sock.settimeout(max(0.001, deadline - time.monotonic()))
