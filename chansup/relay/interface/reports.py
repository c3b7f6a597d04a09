"""What an interface process tells the supervisor: one line each, in order, without waiting."""

import asyncio
import logging
import socket

from chansup.protocol import roster

_MOST = 256 * 1024  # bytes that may wait: a supervisor that never reads gets nothing more

_log = logging.getLogger("chansup.relay")


class Reports:
    """The lines that this process says on the socket on which it hears the roster."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._unsent = b""
        self._waits = False
        self._broken = False

    def tell(self, report: roster.Report) -> None:
        """Say `report`, now or as soon as there is room. Inside the event loop."""
        if self._broken:
            return
        if len(self._unsent) > _MOST:
            self._break_off("it does not read")
            return
        self._unsent += roster.encode(report)
        if not self._waits:
            self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # it is gone
            self._break_off(error.strerror or str(error))
        if self._waits != bool(self._unsent):
            self._waits = bool(self._unsent)
            if self._waits:
                loop.add_writer(self._socket.fileno(), self._write)
            else:
                loop.remove_writer(self._socket.fileno())

    def _break_off(self, reason: str) -> None:
        self._broken = True
        self._unsent = b""
        if self._waits:
            self._waits = False
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
        _log.warning("cannot report to the supervisor: %s", reason)
