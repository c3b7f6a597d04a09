"""How a WebSocket stands in the interface process: its phase, where it is, who is gone."""

import asyncio

from chansup.protocol import relay_board as board
from chansup.relay import scopes
from chansup.relay.interface.attachment import Attachment
from chansup.relay.interface.headers import Scope, host_of
from chansup.relay.interface.phases import OPEN_FOR_CLIENT, PAUSED, TRANSITIONS, Event, Phase
from chansup.relay.interface.pool import Pool
from chansup.relay.interface.worker import Worker


class Standing:
    """What all that deals with one WebSocket has to know of it."""

    __slots__ = (
        "_permit_of", "accepted", "attachment", "code", "left_with", "phase", "pool", "scope",
        "scope_bytes", "turn",
    )  # fmt: skip

    def __init__(self, pool: Pool, scope: Scope) -> None:
        self.pool = pool
        self.scope: Scope | None = scope  # until it is accepted
        self.scope_bytes = b""  # of the handshake, as a worker gets it
        self.phase = Phase.SEEKING
        self.attachment: Attachment | None = None  # where it is
        self._permit_of: Worker | None = None
        self.accepted = False
        self.code = 0  # close code, as soon as it is known
        self.turn: asyncio.Future[Worker] | None = None  # to get a worker, while it waits for one
        self.left_with: tuple[int, bytes] | None = None  # code and reason of the client

    @property
    def is_over(self) -> bool:
        """Whether it has ended, for the client and for the workers."""
        return self.phase is Phase.OVER

    @property
    def is_open_for_client(self) -> bool:
        """Whether the client has its accept, and no close."""
        return self.phase in OPEN_FOR_CLIENT

    def move_on(self, event: Event) -> None:
        """Take the next step of its course."""
        before, self.phase = self.phase, TRANSITIONS[self.phase][event]
        counters = self.pool.counters
        if (before in PAUSED) != (self.phase in PAUSED):
            counters.add(board.PAUSED, 1 if self.phase in PAUSED else -1)
        if (before is Phase.OPEN) != (self.phase is Phase.OPEN):
            counters.add(board.ATTACHED, 1 if self.phase is Phase.OPEN else -1)

    def host_and_path(self) -> tuple[bytes | None, str]:
        """Return what its route was found by."""
        fields = scopes.decode_websocket_scope(self.scope_bytes)
        return host_of(fields.headers), fields.path

    def hold_permit(self, worker: Worker) -> None:
        """Take notice that a permit of `worker` was taken for it."""
        self._permit_of = worker

    def release_permit(self) -> None:
        """Give the permit back, if it has one."""
        worker, self._permit_of = self._permit_of, None
        if worker is not None:
            worker.release()

    def detach(self) -> None:
        """Take notice that it is at no worker any more."""
        self.attachment = None
        self.release_permit()

    def tell_disconnect(self, code: int, reason: bytes) -> None:
        """Tell the app, if there is one, that the client is gone."""
        if self.attachment is not None:
            self.attachment.disconnect(code, reason)
