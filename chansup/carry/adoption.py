"""How this process continues with a WebSocket of another one: the handshake is repeated here."""

import asyncio
from typing import Any, Protocol

from chansup.carry import handshake, remainder
from chansup.carry.arena import Slot
from chansup.carry.connection import Connection
from chansup.carry.handshake import Record
from chansup.carry.layout import CLOSING, COUNT, OPEN, STATE, WORD
from chansup.carry.views import Phase

_INTERNAL_ERROR, _POLICY_VIOLATION, _SERVICE_RESTART = 1011, 1008, 1012  # RFC 6455, section 7.4


class Adopter(Protocol):
    """This process, as an adoption sees it."""

    def resumed(self, connection: Connection) -> None:
        """Take notice that an adopted connection continues."""

    def refused(self, connection: Connection, reason: str) -> None:
        """Take notice that an adopted connection is closed, as a word of HANDOVERS says."""


class Adoption:
    """One connection on its way from another process."""

    def __init__(
        self,
        adopter: Adopter,
        connection: Connection,
        left: remainder.Remainder,
        record: Record,
        count: int,
    ) -> None:
        """`left`: what the other process left; `count`: handovers so far, this one included."""
        self._adopter = adopter
        self.connection = connection
        self.left = left
        self._record = record
        self._count = count
        connection.phase = Phase.REPEATING
        connection.record = record
        connection.is_offered = True  # the supervisor holds it
        connection.on_answer = self._swallow
        connection.on_refusal = lambda: self._refuse(_INTERNAL_ERROR, "denied")

    def copy(self, slot: Slot) -> bool:
        """Copy what the other process left into a slot of this one. Say whether there is room."""
        connection, left, words = self.connection, self.left, slot.words
        connection.slot = slot
        connection.inbound.hold()
        if (
            not remainder.write_record(slot, left.record)
            or not connection.inbound.begin(slot, left.position, left.inbound, 0)
            or not connection.outbound.begin(slot, left.written, left.outbound)
        ):
            return False
        if left.checkpoint is not None:
            remainder.write_checkpoint(slot, left.checkpoint)
        words[WORD], words[COUNT] = left.word, self._count
        words[STATE] = CLOSING if left.is_closing else OPEN
        return True

    def begin(self, close: int) -> None:
        """Write the rest to the client, then repeat the handshake, or close with a code."""
        connection = self.connection
        assert connection.raw is not None
        if self.left.outbound:
            connection.raw.write(self.left.outbound)  # it stands in the journal
        if self.left.is_closing:
            connection.end()
        elif close:
            connection.end_with(close)
        else:
            connection.make()
            connection.data_received(self._record.request)

    def _swallow(self, head: bytes, rest: bytes) -> None:
        """Keep the answer to a repeated handshake from the client, and compare it."""
        connection = self.connection
        stay, slot = connection.stay, connection.slot
        if not handshake.switches(head):
            code = _POLICY_VIOLATION if stay is None else stay.refusal()
            self._refuse(code, "denied")
            return
        if handshake.agreement(handshake.stateless(head)) != self._record.answer:
            self._refuse(_SERVICE_RESTART, "subprotocol")
            return
        connection.request = b""
        connection.phase = Phase.OPEN
        connection.transport.write = connection.outbound.write
        if stay is not None and slot is not None:
            stay.keep(slot)
        asyncio.get_running_loop().call_soon(self._go_on)
        if rest:
            connection.outbound.write(rest)

    def _refuse(self, code: int, result: str) -> None:
        self.connection.transport.write = _nowhere
        self._adopter.refused(self.connection, result)
        self.connection.end_with(code)

    def _go_on(self) -> None:
        """Give the server what was read and not dealt with, then read on."""
        connection = self.connection
        if connection.phase is Phase.OPEN and not connection.is_closing:
            self._adopter.resumed(connection)
            connection.inbound.let_go()


def _nowhere(_data: Any) -> None:
    pass
