"""WebSockets: `websockets` does the protocol, without any tasks of its own."""

import asyncio

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from chansup.bench.connection import CLOSED, MALFORMED, ConnectError, Connection, Work, kind_of
from chansup.bench.target import USER_AGENT

NORMAL = 1000
NO_CODE = 1005
ABNORMAL = 1006  # no close frame came
MAX_MESSAGE = 16 * 2**20  # bytes
_PLACE = "{n}"
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class WebSocket(Connection):
    """Sends a message, waits for one, and sends the next."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._message = work.options.message
        self._is_numbered = _PLACE in self._message
        self._is_up = False  # the handshake is done
        self._is_idle = work.options.idle
        self._wire = ClientProtocol(
            parse_uri(work.target.websocket_url),
            subprotocols=[
                Subprotocol(each.strip())
                for name, value in work.options.headers
                if name.lower() == "sec-websocket-protocol"
                for each in value.split(",")
            ]
            or None,
            max_size=MAX_MESSAGE,
        )

    def write_question(self) -> None:
        """Send the message."""
        message = self._message
        if self._is_numbered:
            message = message.replace(_PLACE, str(next(self._work.numbers)))
        self._wire.send_text(message.encode())
        self._flush()

    def hang_up(self) -> None:
        """Say goodbye, with code 1000."""
        if self._given_up or self._wire.state is not State.OPEN:
            self.give_up()
            return
        self._given_up = True
        self._wire.send_close(NORMAL)
        self._flush()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the handshake."""
        super().connection_made(transport)
        request = self._wire.connect()
        request.headers["User-Agent"] = USER_AGENT
        for name in {name.lower() for name, _ in self._work.options.headers}:
            if name != "sec-websocket-protocol" and name in request.headers:
                del request.headers[name]
        for name, value in self._work.options.headers:
            if name.lower() != "sec-websocket-protocol":
                request.headers[name] = value
        self._wire.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Read the answer to the handshake, or messages."""
        self._counters.received += len(data)
        self._wire.receive_data(data)
        self._read()

    def eof_received(self) -> None:
        """Nothing more comes."""
        self._pace.leave(self)
        self._wire.receive_eof()
        self._read()

    def connection_lost(self, error: Exception | None) -> None:
        """Count how it ended."""
        if self._is_up:
            self._counters.open -= 1
        if self._is_up and not self._given_up:
            code = self._wire.close_rcvd.code if self._wire.close_rcvd else ABNORMAL
            self._counters.closes[code] += 1
            if self.sent is not None or self._is_idle or code not in (NORMAL, NO_CODE):
                self.fail(f"closed with {code}")
            else:
                self._counters.closed_idle += 1
        elif error is not None and not self.usable.done():
            self.usable.set_exception(ConnectError(kind_of(error)))
        super().connection_lost(error)

    def _read(self) -> None:
        for event in self._wire.events_received():
            if isinstance(event, Frame):
                if event.opcode in _DATA and event.fin:
                    self._take_message()
            elif isinstance(event, Response) and self._wire.handshake_exc is None:
                self._is_up = True
                if not self.usable.done():
                    self.usable.set_result(None)
        if (problem := self._wire.handshake_exc) is not None and not self.usable.done():
            self.usable.set_exception(ConnectError(_kind_of_refusal(problem)))
            self.give_up()
            return
        self._flush()
        problem = self._wire.parser_exc
        if problem is not None and not isinstance(problem, EOFError) and not self._given_up:
            self.fail(MALFORMED)
        elif self._wire.close_rcvd is not None:
            # By the book the server closes first; who only measures does not wait for that.
            self._pace.leave(self)
            self._transport.close()

    def _take_message(self) -> None:
        if self.sent is None:
            self._counters.unasked += 1
            return
        now = self.take_answer()
        if self._wire.state is State.OPEN and not self._given_up:
            self.go_on(now)

    def _flush(self) -> None:
        for data in self._wire.data_to_send():
            if data:
                self._transport.write(data)
            # An empty one means that this side is done: the connection ends when both are.


def _kind_of_refusal(problem: Exception) -> str:
    if isinstance(problem, InvalidStatus):
        return f"handshake refused with {problem.response.status_code}"
    if isinstance(problem, EOFError) or isinstance(problem.__cause__, EOFError):
        return CLOSED
    return MALFORMED
