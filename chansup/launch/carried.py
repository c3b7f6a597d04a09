"""How the WebSockets that outlive this process stand in its books, its log and its server."""

import logging
import os
import sys
from typing import Any

from uvicorn.config import WS_PROTOCOLS
from uvicorn.importer import import_from_string

from chansup.carry.carrier import Carrier
from chansup.carry.connection import CURRENT
from chansup.carry.views import Phase
from chansup.launch.child import Child
from chansup.launch.in_flight import InFlight
from chansup.protocol import versions
from chansup.protocol.scoreboard import (
    REJECTED_CELL,
    WEBSOCKETS_OPEN,
    WEBSOCKETS_OPENED,
    close_cell,
)

_LARGEST_MESSAGE = 16 * 1024 * 1024  # bytes, the default of uvicorn


class Books:
    """Counts WebSockets for the scoreboard, and shows them to the drain."""

    def __init__(self, in_flight: InFlight, cells: "memoryview[float]") -> None:
        self._in_flight = in_flight
        self._cells = cells

    @property
    def is_cut(self) -> bool:
        """Whether time is up, and apps are cancelled."""
        return self._in_flight.is_cut

    def came(self, stay: Any) -> None:
        """Take in a WebSocket whose handshake has begun."""
        self._in_flight.websockets.add(stay)

    def accepted(self, is_new: bool) -> None:
        """Count a WebSocket that is open here from now on; `is_new`: for its client, too."""
        self._cells[WEBSOCKETS_OPENED] += is_new
        self._cells[WEBSOCKETS_OPEN] += 1

    def went(self, stay: Any, accepted: bool, code: int, moved: bool) -> None:
        """Count how a WebSocket ended; `moved`: it did not, it left for another process."""
        self._in_flight.websockets.discard(stay)
        if accepted:
            self._cells[WEBSOCKETS_OPEN] -= 1
            if not moved:
                self._cells[close_cell(code or 1006)] += 1
        elif stay.arrival is None:
            self._cells[REJECTED_CELL] += 1
        elif not moved:  # it was open for its client, who was told
            self._cells[close_cell(code or 1006)] += 1
        if self._in_flight.draining:
            self._in_flight.released += 1


class _Quiet(logging.Filter):
    """Keeps a handshake that is repeated out of the log: its client knows of one only."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is to be written."""
        connection = CURRENT.get()
        if connection is None or connection.phase is not Phase.REPEATING:
            return True
        return '"WebSocket %s"' not in str(record.msg)


def carrier(child: Child, options: dict[str, Any]) -> Carrier | None:
    """Return what carries the WebSockets of uvicorn with these arguments, or None.

    `options["ws"]` is replaced by what wraps the server's own protocol.
    """
    settings = child.launch.carry
    if settings is None:
        return None
    os.set_inheritable(settings.channel_fd, False)  # what the app starts has no business there
    if options.get("ssl_certfile") or options.get("ssl_keyfile"):
        return None
    try:
        versions.require(versions.CARRY, settings.version)
    except versions.VersionError as error:
        os.close(settings.channel_fd)
        complaint = f"chansup: {error}. Until then WebSockets end with their process\n"
        sys.stderr.write(complaint)
        return None
    name = options.get("ws", "auto")
    inner = WS_PROTOCOLS.get(name, name)
    if isinstance(inner, str):
        inner = import_from_string(inner)
    if inner is None:
        return None
    books = Books(child.in_flight, child.cells)
    largest = int(options.get("ws_max_size", _LARGEST_MESSAGE))
    made = Carrier(settings, books, largest)
    options["ws"] = lambda **arguments: made.wrap(inner(**arguments))
    child.in_flight.handover_rate = settings.handover_rate
    logging.getLogger("uvicorn.error").addFilter(_Quiet())
    return made
