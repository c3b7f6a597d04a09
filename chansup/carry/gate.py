"""Whether a connection is read from: the server has a say, and so has whoever moves it."""

from typing import Any

from chansup.carry.transport import Transport


class Gate:
    """Reading stops for as long as there is a reason, and otherwise as the server wants it."""

    __slots__ = ("_raw", "_reasons", "_server_paused", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._raw: Any = None  # an asyncio.Transport
        self._reasons: set[str] = set()
        self._server_paused = False

    def open(self, raw: Any, held: bool) -> None:
        """Stand before a transport; `held`: read nothing from it, from the begin on."""
        self._raw = raw
        self._transport.open(raw)
        if held:
            self._reasons.add("held")
            self._transport.hold(self._note)
            raw.pause_reading()

    def stop(self, reason: str) -> None:
        """Read nothing until the same reason is gone."""
        if not self._reasons:
            self._server_paused = not self._raw.is_reading()
            self._transport.hold(self._note)
        self._reasons.add(reason)
        self._raw.pause_reading()

    def read_on(self, reason: str) -> None:
        """Read again, if there is no other reason and the server wants it."""
        if reason not in self._reasons:
            return
        self._reasons.discard(reason)
        if not self._reasons:
            self._transport.let_through()
            if not self._server_paused and not self._raw.is_closing():
                self._raw.resume_reading()

    def throttle(self, stops: bool) -> None:
        """Stop or read on because much waits for the app."""
        if stops:
            self.stop("throttled")
        else:
            self.read_on("throttled")

    def pause_again(self) -> None:
        """Take notice that something was read all the same: uvloop reads once it has a socket."""
        if self._raw is not None:
            self._raw.pause_reading()

    @property
    def is_held(self) -> bool:
        """Whether it is read by nobody because it moves."""
        return "held" in self._reasons

    def _note(self, pauses: bool) -> None:
        self._server_paused = pauses
