"""An HTTP/1.1 client that shows every byte of what a connection goes through."""

import http.client
import socket
import ssl
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 20.0


def open_socket(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(address[5:])
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


class Connection(http.client.HTTPConnection):
    """One connection, never reopened behind the test's back."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.auto_open = 0
        self.sock = open_socket(address)
        self._kept = self.sock.dup()  # http.client closes its own after "Connection: close"
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")

    def get(self, path: str = "/", **headers: str) -> "Answer":
        self.ask(path, **headers)
        return self.answer()

    def ask(self, path: str = "/", **headers: str) -> None:
        self.request("GET", path, headers=headers)

    def answer(self) -> "Answer":
        return Answer(self.getresponse())

    def is_closed_by_server(self, timeout: float) -> bool:
        """Wait for the end of the stream."""
        self._kept.settimeout(timeout)
        try:
            return self._kept.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.connection = (response.getheader("connection") or "").lower()
        self.headers = response.headers
        self.body = response.read()


def get(address: str, path: str = "/", **headers: str) -> Answer:
    connection = Connection(address)
    try:
        return connection.get(path, **{"Connection": "close", **headers})
    finally:
        connection.close()


def websocket(address: str, path: str = "/echo", **keywords: Any) -> ClientConnection:
    connection = open_socket(address)
    if keywords.get("ssl"):
        scheme = "wss"
        keywords["server_hostname"] = "localhost"
    else:
        scheme = "ws"
    return connect(f"{scheme}://localhost{path}", sock=connection, **keywords)
