"""The resources of one process, made before it starts: memory, sockets, descriptors."""

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from chansup.config import address
from chansup.protocol import bulletin, refusals, relay_board, scoreboard
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.relay_board import RelayBoard
from chansup.protocol.scoreboard import Scoreboard
from chansup.supervisor.carry.carrier import Carrier
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.process.notify import NotifySocket
from chansup.supervisor.process.notify_sockets import NotifySockets
from chansup.supervisor.process.roster_pipe import RosterPipe
from chansup.supervisor.process.spawn import account_of
from chansup.supervisor.sockets.worker_sockets import WorkerSockets
from chansup.unix import UnixListener

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


@dataclass(frozen=True)
class Inheritance:
    """A listening socket for a child, and what the child must know of it."""

    descriptor: int
    address: str
    steered: bool


class ProcessResources:
    """Use it as a context around the spawn: what only the child needs is closed at its end.

    If the spawn fails, everything is.
    """

    def __init__(
        self,
        specification: PoolSpecification,
        listeners: Sequence[Inheritance],
        sockets: WorkerSockets,
        users: Collection[int],
        notify: NotifySockets,
    ) -> None:
        """Make what a process of `specification` needs. `users` run the interface.

        Raises SpawnError.
        """
        self.listeners = list(listeners)
        self.others: list[int] = []  # descriptors after the listeners, in their order
        self.scoreboard: Scoreboard | None = None
        self.relay_board: RelayBoard | None = None
        self.bulletin: Bulletin | None = None
        self.roster_pipe: RosterPipe | None = None
        self.socket: UnixListener | None = None
        self.carrier: Carrier | None = None  # as the holder of its WebSockets sees it
        self.notify: NotifySocket  # where it reports
        self._childs = ExitStack()  # what the child has its own copy of
        self._ours = ExitStack()  # what lives as long as the child
        try:
            self.notify = notify.open(account_of(specification.command))
            self._ours.callback(self.notify.close)
            self._make(specification, sockets, users)
        except OSError as error:
            self._give_up()
            reason = refusals.shortage(error)
            raise SpawnError(
                f"cannot make the shared memory and sockets of a process: {reason}"
            ) from None
        except BaseException:
            self._give_up()
            raise

    def _make(
        self, specification: PoolSpecification, sockets: WorkerSockets, users: Collection[int]
    ) -> None:
        if specification.serves:
            self.socket = sockets.listen(users)
            self._childs.callback(self.socket.sock.close)
            self._ours.callback(self.socket.remove)
            where = str(address.Unix(self.socket.path))
            self.listeners.append(Inheritance(self.socket.sock.fileno(), where, steered=False))
        if specification.launcher:
            self.scoreboard = Scoreboard(self._board(scoreboard.create()))
        if specification.relays:
            self.roster_pipe = RosterPipe()
            self._childs.callback(self.roster_pipe.theirs.close)
            self._ours.callback(self.roster_pipe.close)
            self.others.append(self.roster_pipe.theirs.fileno())
            self.relay_board = RelayBoard(self._board(relay_board.create()))
        if specification.carries:
            self.carrier = Carrier(specification.name)
            self._childs.callback(self.carrier.channel.theirs.close)
            self._ours.callback(self.carrier.channel.close)
            self.others.append(self.carrier.channel.theirs.fileno())
        if specification.reports:
            self.bulletin = Bulletin(self._board(bulletin.create()))

    def _board(self, descriptor: int) -> int:
        self._childs.callback(os.close, descriptor)
        self.others.append(descriptor)
        return descriptor

    def lend(self, descriptor: int) -> int:
        """Have the child inherit one more descriptor; return which one it is there."""
        self.others.append(descriptor)
        return self.place_of_other(len(self.others) - 1)

    def place_of_other(self, number: int) -> int:
        """Return the descriptor that `others[number]` is in the child."""
        return FIRST_DESCRIPTOR + len(self.listeners) + number

    def __enter__(self) -> "ProcessResources":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the child's ends, or all of them."""
        if error is None:
            self._childs.close()
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._childs.close()
        self.release()

    def release(self) -> None:
        """Take away what lived as long as the child. The boards stay readable."""
        self._ours.close()
