"""HTTP/1.1, kept alive as long as the server does."""

import asyncio

import httptools

from chansup.bench.connection import CLOSED, MALFORMED, SHORT, Connection, Work, kind_of

MAX_HEAD = 256 * 1024  # bytes of an answer's status line and headers
_LENGTHS = {len("connection"), len("content-length"), len("transfer-encoding")}


class HttpConnection(Connection):
    """Sends the same request again and again."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._request = work.request
        self._to_head = work.options.method == "HEAD"
        self._refresh()
        self._prepare()

    def write_question(self) -> None:
        """Write the request."""
        self._transport.write(self._request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used at once."""
        super().connection_made(transport)
        self.usable.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read on in the answer."""
        if self._given_up:
            return
        self._counters.received += len(data)
        if self.sent is None:
            self.fail(MALFORMED)  # nothing was asked
            return
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(MALFORMED)
            return
        if not self._whole:
            if self._is_head and self._head_size > MAX_HEAD:
                self.fail(MALFORMED)
        elif self._begun > 1 or (self._to_head and self._has_body):
            self.fail(MALFORMED)  # more than one answer
        else:
            self._complete()

    def eof_received(self) -> None:
        """Let nothing more be asked here."""
        self._pace.leave(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Count what was lost with it, if anything was."""
        self._counters.open -= 1
        if self._given_up:
            pass
        elif self.sent is None:
            self._counters.closed_idle += 1
        elif error is None and self._ends_with_connection:
            self.take_answer(self._status)
        elif self._begun:
            self.fail(SHORT)
        else:
            self.fail(CLOSED if error is None else kind_of(error))
        super().connection_lost(error)

    def _complete(self) -> None:
        now = self.take_answer(self._status)
        if not self._keeps_alive:
            self._given_up = True
            self._transport.close()
            return
        if self._to_head:
            self._refresh()
        self._prepare()
        self.go_on(now)

    # httptools calls these

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look how the answer ends, and whether the connection does with it."""
        if len(name) not in _LENGTHS:
            return
        name = name.lower()
        if name == b"connection":
            self._connection = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        """The head is there: for HEAD that is all."""
        self._status = self._parser.get_status_code()
        if self._status < 200:
            return
        self._is_head = False
        if self._to_head:
            self._whole = True
            version = self._parser.get_http_version()
            wanted = b"keep-alive" in self._connection or version == "1.1"
            self._keeps_alive = wanted and b"close" not in self._connection
        elif not self._is_framed and self._status not in (204, 304):
            self._ends_with_connection = True

    def on_body(self, body: bytes) -> None:
        """There is a body, where HEAD has none."""
        self._has_body = True

    def on_message_complete(self) -> None:
        """The answer is whole, unless it is one that comes before the answer."""
        if self._status < 200:  # 100 Continue, 103 Early Hints
            self._begun -= 1
            return
        self._whole = True
        if not self._to_head:
            self._keeps_alive = self._parser.should_keep_alive()

    def _refresh(self) -> None:
        # Again for each answer to HEAD: the parser waits for a body that does not come.
        self._parser = httptools.HttpResponseParser(self)

    def _prepare(self) -> None:
        self._begun = 0
        self._status = 0
        self._head_size = 0
        self._is_head = True
        self._whole = False
        self._has_body = False
        self._is_framed = False
        self._ends_with_connection = False
        self._keeps_alive = False
        self._connection = b""
