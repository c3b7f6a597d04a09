"""An HTTP/2 client that notes what comes back on each of its streams, pushed ones included."""

import socket
import ssl
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from ..apps.notation import summary
from .http1 import PATIENCE, Broken

Headers = list[tuple[str, str]]


class Conversation2:
    """One connection, of prior knowledge or over TLS."""

    def __init__(self, address: str, case: str, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        self.case = case
        self.scheme = "https" if tls else "http"
        self.socket: socket.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.port: int = self.socket.getsockname()[1]
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2"
        configuration = h2.config.H2Configuration(header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(configuration)
        self._h2.initiate_connection()
        self._streams: dict[int, list[Any]] = {}
        self._ended: set[int] = set()
        self._flush()

    @property
    def notes(self) -> list[Any]:
        """What came on each stream, in the order of their numbers; a body as one."""
        return [[number, *self._streams[number]] for number in sorted(self._streams)]

    # --- speaking

    def request(
        self, path: str = "/", *headers: tuple[str, str], method: str = "GET", end: bool = True,
        case: str | None = None,
    ) -> int:  # fmt: skip
        number = self._h2.get_next_available_stream_id()
        head = [
            (":method", method),
            (":authority", "localhost"),
            (":scheme", self.scheme),
            (":path", path),
            ("x-case", case or self.case),
        ]
        self._streams[number] = []
        self._h2.send_headers(number, [*head, *headers], end_stream=end)
        self._flush()
        return number

    def connect(self, path: str = "/", *headers: tuple[str, str]) -> int:
        """Open a WebSocket by RFC 8441."""
        number = self._h2.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":authority", "localhost"),
            (":scheme", self.scheme),
            (":path", path),
            ("x-case", self.case),
            ("sec-websocket-version", "13"),
        ]
        self._streams[number] = []
        self._h2.send_headers(number, [*head, *headers])
        self._flush()
        return number

    def data(self, number: int, content: bytes, *, end: bool = False) -> None:
        while content or end:
            window = self._h2.local_flow_control_window(number)
            size = min(window, self._h2.max_outbound_frame_size, len(content))
            if content and not size:
                self._read()
                continue
            part, content = content[:size], content[size:]
            last = end and not content
            self._h2.send_data(number, part, end_stream=last)
            self._flush()
            if last:
                return

    def trailers(self, number: int, *headers: tuple[str, str]) -> None:
        self._h2.send_headers(number, headers, end_stream=True)
        self._flush()

    def reset(self, number: int) -> None:
        self._h2.reset_stream(number, error_code=8)
        self._ended.add(number)
        self._flush()

    # --- listening

    def finish(self, *numbers: int) -> None:
        """Read until the streams have ended; all that are open, if none is named."""
        while not all(number in self._ended for number in numbers or list(self._streams)):
            self._read()

    def body(self, number: int, size: int) -> bytes:
        """Read until so much of a body is there."""
        while len(self._content(number)) < size and number not in self._ended:
            self._read()
        return self._content(number)

    def start(self, number: int) -> None:
        """Read until the head of a response is there."""
        while not any(note[0] == "head" for note in self._streams[number]):
            self._read()

    def _content(self, number: int) -> bytes:
        return b"".join(note[1] for note in self._streams[number] if note[0] == "data")

    def _read(self) -> None:
        try:
            data = self.socket.recv(65_536)
        except TimeoutError:
            raise AssertionError(f"{self.case}: nothing more came; {self.notes}") from None
        except OSError:
            raise Broken from None
        if not data:
            raise Broken
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.note("violation", type(error).__name__)
            raise Broken from error
        for event in events:
            self._take(event)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        number: int = getattr(event, "stream_id", 0)
        if number in self._ended:
            return  # a reset, if an upload was not complete: time decides
        notes = self._streams.get(number, [])
        if isinstance(event, h2.events.PushedStreamReceived):
            self._streams[event.pushed_stream_id or 0] = [["pushed", shown(event.headers)]]
        elif isinstance(event, h2.events.InformationalResponseReceived):
            notes.append(["informational", shown(event.headers)])
        elif isinstance(event, h2.events.ResponseReceived):
            notes.append(["head", shown(event.headers)])
        elif isinstance(event, h2.events.TrailersReceived):
            notes.append(["trailers", shown(event.headers)])
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, number)
            if notes and notes[-1][0] == "data":
                notes[-1][1] += event.data
            else:
                notes.append(["data", event.data])
        elif isinstance(event, h2.events.StreamEnded):
            notes.append(["end"])
            self._ended.add(number)
        elif isinstance(event, h2.events.StreamReset):
            notes.append(["reset", int(event.error_code)])
            self._ended.add(number)

    def _flush(self) -> None:
        self.socket.sendall(self._h2.data_to_send())

    def note(self, *words: Any) -> None:
        self._streams.setdefault(0, []).append(list(words))

    def close(self) -> None:
        for notes in self._streams.values():
            for note in notes:
                if note[0] == "data":
                    note[1] = summary(note[1], "latin-1")
        self.socket.close()


def shown(headers: Any) -> list[str]:
    pairs = [(text(name), text(value)) for name, value in headers]
    return [f"{name}: {value}" for name, value in pairs if name != "date"]


def text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
