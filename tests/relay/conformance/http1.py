"""A raw HTTP/1.1 client that notes all that comes back: heads, bodies, framing, ends."""

import contextlib
import socket
import ssl
import struct
from typing import Any

from ..apps.notation import summary

PATIENCE = 10.0


class Broken(Exception):
    """The connection ended where a response should be, or continue."""


class Conversation:
    """One connection, and what was said on it."""

    def __init__(self, address: str, case: str, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self.case = case
        self.notes: list[Any] = []
        self.socket: socket.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.socket.getsockname()[1]
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._buffer = b""

    # --- speaking

    def send(self, data: bytes) -> None:
        """Send what the server will have, even if it has closed already."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def head(
        self, target: bytes = b"/", *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1",
        case: str | None = None,
    ) -> None:  # fmt: skip
        """Send a request without a body."""
        fixed = [b"Host: localhost", b"X-Case: " + (case or self.case).encode()]
        start = method + b" " + target + b" HTTP/" + version
        self.send(b"\r\n".join([start, *fixed, *lines, b"", b""]))

    def post(self, content: bytes, *lines: bytes, target: bytes = b"/") -> None:
        length = b"Content-Length: %d" % len(content)
        self.head(target, length, *lines, method=b"POST")
        self.send(content)

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def leave(self) -> None:
        self.socket.close()

    def vanish(self) -> None:
        """Close with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    # --- listening

    def note(self, *words: Any) -> None:
        self.notes.append(list(words))

    def more(self) -> bytes:
        """Return what came, and what more comes. Raises Broken at the end of the stream."""
        try:
            data = self.socket.recv(262_144)
        except TimeoutError:
            raise AssertionError(f"{self.case}: nothing more came; notes: {self.notes}") from None
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            raise Broken from None  # a reset, if the server had not read all: time decides
        if not data:
            raise Broken
        return data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._buffer += self.more()
        part, _, self._buffer = self._buffer.partition(mark)
        return part

    def exactly(self, size: int) -> bytes:
        parts = [self._buffer]
        have = len(self._buffer)
        while have < size:
            parts.append(self.more())
            have += len(parts[-1])
        whole = b"".join(parts)
        self._buffer = whole[size:]
        return whole[:size]

    def start(self) -> dict[bytes, bytes]:
        """Read and note the head of a response; return its headers."""
        line, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
        pairs = [line.split(b":", 1) for line in lines]
        headers = [(name, value.strip()) for name, value in pairs]
        kept = [
            f"{name.decode()}: {value.decode('latin-1')}"
            for name, value in headers
            if name.lower() not in (b"date", b"sec-websocket-accept")
        ]
        self.note("head", line.decode(), kept)
        return {name.lower(): value for name, value in headers}

    def response(self, method: str = "GET") -> bytes:
        """Read and note a response, and how it was framed or broken off; return its body."""
        content, framing = b"", "none"
        try:
            headers = self.start()
            while self.notes[-1][1].split()[1].startswith("1"):
                if self.notes[-1][1].split()[1] == "101":
                    return b""
                headers = self.start()
            status = self.notes[-1][1].split()[1]
            if method == "HEAD" or status in ("204", "304"):
                pass
            elif headers.get(b"transfer-encoding", b"").lower() == b"chunked":
                framing = "chunked"
                content = self._chunks()
            elif b"content-length" in headers:
                framing = "length"
                content = self._counted(int(headers[b"content-length"]))
            else:
                framing = "close"
                content = self._rest()
        except Broken:
            self.note("broken", "before a response" if framing == "none" else "in the body")
            return b""
        self.note("body", framing, summary(content, "latin-1"))
        return content

    def _counted(self, size: int) -> bytes:
        try:
            return self.exactly(size)
        except Broken:
            self.note("before that", "incomplete")
            raise

    def _chunks(self) -> bytes:
        content: list[bytes] = []
        while True:
            try:
                size = int(self._until(b"\r\n").split(b";")[0], 16)
                data = self.exactly(size + 2)[:-2] if size else b""
            except Broken:
                self.note("before that", summary(b"".join(content), "latin-1"))
                raise
            if not size:
                self._trailers()
                return b"".join(content)
            content.append(data)

    def _trailers(self) -> None:
        while line := self._until(b"\r\n"):
            self.note("trailer", line.decode("latin-1"))

    def _rest(self) -> bytes:
        content, self._buffer = self._buffer, b""
        while True:
            try:
                content += self.more()
            except Broken:
                return content

    def chunk_data(self, size: int) -> bytes:
        """Read so many bytes of a chunked body, however they are cut."""
        content = b""
        while len(content) < size:
            length = int(self._until(b"\r\n"), 16)
            assert length, f"the response ended after {content!r}"
            content += self.exactly(length + 2)[:-2]
        self.note("data", content.decode("latin-1"))
        return content

    def end_of_chunks(self) -> None:
        """Read the end of a chunked body."""
        rest = self._chunks()
        self.note("end of body", rest.decode("latin-1"))

    def again(self) -> None:
        """Note whether the connection can be used for another request."""
        self.head(b"/again", case="plain.again")
        try:
            self.start()
        except Broken:
            self.note("again", "closed")
            return
        self.note("again", "answered")

    def end(self) -> None:
        """Wait for the server's end of the connection."""
        try:
            while data := self.more():
                self.note("data", summary(data, "latin-1"))
        except Broken:
            self.note("end")

    def close(self) -> None:
        self.socket.close()
