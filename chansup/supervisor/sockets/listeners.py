"""The sockets that clients connect to: opened once, kept through restarts, shared out to slots.

On TCP every slot has a listener of its own in one SO_REUSEPORT group, and a program says which of
them get new connections (`steering`). A Unix socket, one that systemd passed, and TCP where the
kernel refuses the program, cannot be split: all slots share them.

An index in a group is a place in the order in which its listeners began to listen, and closing one
moves the last into its place; so listeners are only ever closed from the end. Sources: socket(7),
tcp(7), unix(7), and ``net/core/sock_reuseport.c`` for the order.
"""

import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence

from chansup.config.address import Address
from chansup.unix import Ownership, Presence

BACKLOG = 2048  # connections that may wait; the kernel takes net.core.somaxconn if that is less


class Listeners(ABC):
    """What listens on one address, for every slot of a pool."""

    address: Address  # with the real port
    steered: bool  # whether new connections can be kept away from a slot

    @property
    def slots(self) -> int:
        """How many listeners there are to choose from."""
        return 1

    @abstractmethod
    def ensure(self, slots: int) -> None:
        """Have a listener for each of so many slots. Closes none. Raises AddressError."""

    @abstractmethod
    def shrink(self, slots: int) -> None:
        """Close the listeners of all further slots; only when nothing is left to accept there."""

    @abstractmethod
    def socket_of(self, slot: int) -> socket.socket:
        """Return the listening socket that the processes of `slot` inherit."""

    @abstractmethod
    def steer(self, ready: Sequence[int], weights: Sequence[int] | None = None) -> None:
        """Send new connections to the slots `ready` only; to all if none is."""

    def lead(self, port: int | None, slot: int) -> None:  # noqa: B027 - one socket needs no choice
        """Have a connection from the TCP port `port` arrive at `slot`; None: no more."""

    @abstractmethod
    def adjust(self, backlog: int, ownership: Ownership) -> None:
        """Take over settings that can change while it listens. Raises AddressError."""

    @abstractmethod
    def refuse(self) -> None:
        """Refuse new connections from now on, in every process that shares the sockets.

        Those in the queue are reset. Sockets that systemd passed are left alone: it queues for the
        next start.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop listening."""

    opened = 0.0  # when what listens now began to (CLOCK_MONOTONIC), if it ever changed

    def presence(self) -> Presence:
        """Return what stands where clients look for it."""
        return Presence.OURS

    def restore(self, *, close_former: bool = True) -> bool:
        """Make what vanished again; whether processes must be replaced to listen there.

        Without `close_former` somebody else closes the socket that it had until now. Raises
        AddressError when it cannot be made.
        """
        return False


def shut(sock: socket.socket) -> None:
    """End listening, for all who share `sock`."""
    # shutdown(2) on a listening socket ends listening for all who share it; Linux, TCP and Unix.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
