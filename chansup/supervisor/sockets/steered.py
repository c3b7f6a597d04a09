"""One listener for each slot, and a program that chooses among them."""

import socket
from collections.abc import Sequence

from chansup.config.address import Tcp
from chansup.supervisor.sockets import steering
from chansup.supervisor.sockets.listeners import BACKLOG, Listeners, shut
from chansup.supervisor.sockets.steering import Instruction, SteeringRefusedError
from chansup.supervisor.sockets.tcp import listen, real
from chansup.unix import Ownership


class SteeredGroup(Listeners):
    """One listener per slot on one TCP address, and a program that chooses among them."""

    steered = True

    def __init__(self, first: socket.socket, address: Tcp, backlog: int, dual_stack: bool) -> None:
        self.address: Tcp = address
        self._sockets = [first]
        self._backlog = backlog
        self._dual_stack = dual_stack
        self._slots = 1
        self._choice: object = None  # what the program was made for
        self._program: list[Instruction] | None = None

    @property
    def slots(self) -> int:
        """How many listeners there are to choose from."""
        return len(self._sockets)

    @classmethod
    def open(
        cls, address: Tcp, backlog: int = BACKLOG, *, dual_stack: bool = False
    ) -> "SteeredGroup":
        """Listen on `address`, whose host must be numeric, for one slot.

        Raises AddressError when somebody else listens there, or SteeringRefusedError.
        """
        if not steering.supported():
            raise SteeringRefusedError("this kernel takes no program to steer connections with")
        first = listen(address, backlog, dual_stack)
        # SO_REUSEPORT would let a second process of the same user join in silently. So the first
        # listener claims the port for itself alone, and admits others only then.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return cls(first, real(address, first), backlog, dual_stack)

    def ensure(self, slots: int) -> None:
        """Have a listener for each of so many slots. Closes none. Raises AddressError."""
        self._slots = max(slots, 1)
        while len(self._sockets) < self._slots:
            self._sockets.append(
                listen(self.address, self._backlog, self._dual_stack, reuse_port=True)
            )

    def shrink(self, slots: int) -> None:
        """Close the listeners of all further slots; only when nothing is left to accept there."""
        self._slots = max(slots, 1)
        while len(self._sockets) > self._slots:
            self._sockets.pop().close()

    def socket_of(self, slot: int) -> socket.socket:
        """Return the listening socket that the processes of `slot` inherit."""
        return self._sockets[slot]

    def steer(self, ready: Sequence[int], weights: Sequence[int] | None = None) -> None:
        """Send new connections to the slots `ready` only; to all if none is.

        Cheap to call: nothing happens unless the choice changes. Raises SteeringRefusedError.
        """
        if len(self._sockets) == 1:  # no group yet, and no choice
            return
        choice = (self._slots, tuple(ready), None if weights is None else tuple(weights))
        if choice == self._choice:
            return
        program = steering.program(ready, weights)
        if program[-1].k == steering.NO_CHOICE:  # it would take slots in that are to be closed
            program = steering.program(range(self._slots))
        if program != self._program:
            steering.attach(self._sockets[0], program)
        self._choice, self._program = choice, program

    def lead(self, port: int | None, slot: int) -> None:
        """Have a connection from the TCP port `port` arrive at `slot`; None: no more."""
        if len(self._sockets) == 1:
            return
        program = self._program or steering.program(range(self._slots))
        if port is not None:
            ipv6 = self._sockets[0].family == socket.AF_INET6
            program = steering.leading(port, slot, ipv6, program)
        steering.attach(self._sockets[0], program)

    def adjust(self, backlog: int, ownership: Ownership) -> None:
        """Take over the backlog."""
        self._backlog = backlog
        for sock in self._sockets:
            sock.listen(backlog)

    def refuse(self) -> None:
        """Refuse new connections from now on, in every process that shares the sockets."""
        for sock in self._sockets:
            shut(sock)

    def close(self) -> None:
        """Stop listening."""
        while self._sockets:
            self._sockets.pop().close()
