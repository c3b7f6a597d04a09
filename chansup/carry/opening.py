"""How a new WebSocket begins to be carried: at the moment when its handshake is accepted."""

import os
import socket

from chansup.carry import handshake, positions, remainder
from chansup.carry.connection import Connection
from chansup.carry.layout import OPEN, STATE
from chansup.carry.views import Host, Phase


class Opening:
    """The answer of the server to the handshake of a new connection."""

    def __init__(self, host: Host, connection: Connection) -> None:
        self._host = host
        self._connection = connection
        connection.on_answer = self._take

    def _take(self, head: bytes, rest: bytes) -> None:
        connection = self._connection
        carried = handshake.stateless(head) if handshake.switches(head) else b""
        if carried and self._begin(carried):
            connection.outbound.write(carried + rest)
        else:
            connection.become_plain(head + rest)

    def _begin(self, head: bytes) -> bool:
        """Keep what comes and goes from now on: the 101 is the first that is kept.

        First the slot is written, then the supervisor is offered the socket, then the 101 goes out.
        """
        connection = self._connection
        raw, stay, early = connection.raw, connection.stay, connection.inbound.early
        if raw is None or stay is None or early is None or raw.get_write_buffer_size():
            return False
        slot = self._host.take_slot()
        if slot is None:
            return False
        connection.slot = slot
        record = stay.record(connection.request, handshake.agreement(head))
        read, written = self._positions(len(early))
        if (
            not remainder.write_record(slot, handshake.encode(record))
            or not connection.outbound.begin(slot, written)
            or not connection.inbound.begin(slot, read - len(early), bytes(early), len(early))
        ):
            connection.let_go()
            self._host.ended(connection)
            return False
        connection.request = b""
        stay.keep(slot)
        slot.words[STATE] = OPEN
        connection.phase = Phase.OPEN
        connection.transport.write = connection.outbound.write
        connection.transport.read_by(connection.inbound)
        if not raw.is_reading():
            connection.inbound.is_stopped()
        self._host.opened(connection)
        return True

    def _positions(self, early: int) -> tuple[int, int]:
        """Return what was read and written so far. Without the kernel's count any begin will do."""
        connection = self._connection
        assert connection.raw is not None
        sock = connection.raw.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            return early, 0
        try:
            with socket.socket(fileno=os.dup(sock.fileno())) as own:  # uvloop's has fewer methods
                positions.prepare(own)
                found = positions.of(own)
        except OSError:
            return early, 0
        connection.is_kernel_counted = True
        return found.read, found.written
