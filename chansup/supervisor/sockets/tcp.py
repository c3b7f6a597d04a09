"""A listening TCP socket, and why there may be none."""

import errno
import os
import socket
from pathlib import Path

from chansup.config.address import Tcp
from chansup.supervisor.errors import AddressError


class PortTakenError(AddressError):
    """Somebody listens there. Found by `open_listeners`, which then looks for the holder."""

    def __init__(self, address: Tcp) -> None:
        self.address = address
        super().__init__(self.describe(address, None))

    def describe(self, asked: Tcp, holder: str | None) -> str:
        """Return the message, for the address as the config has it."""
        held = f"{holder} already listens there" if holder else "the port is already in use"
        return f"cannot listen on {asked}: {held}. Stop it, or choose another port"


class NoSuchInterfaceError(AddressError):
    """The machine does not have this address, or not this family of addresses."""


def bind(address: Tcp, dual_stack: bool, *, reuse_port: bool = False) -> socket.socket:
    """Return a non-blocking TCP socket that does not listen yet. Raises AddressError."""
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(
            address.host,
            address.port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_NUMERICHOST,
        )
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refusal(error, address) from None
    try:
        # Connections of an earlier run that linger in TIME_WAIT do not hold the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(place)
    except OSError as error:
        sock.close()
        raise _refusal(error, address) from None
    return sock


def listen(
    address: Tcp, backlog: int, dual_stack: bool, *, reuse_port: bool = False
) -> socket.socket:
    """Return a listening, non-blocking TCP socket. Raises AddressError."""
    sock = bind(address, dual_stack, reuse_port=reuse_port)
    try:
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _refusal(error, address) from None
    return sock


def _refusal(error: OSError, address: Tcp) -> AddressError:
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(address)
    if error.errno == errno.EACCES:
        return AddressError(
            f"cannot listen on {address}: ports below {_first_free_port()} need a privilege. "
            "Choose a higher port, or grant CAP_NET_BIND_SERVICE (in a systemd unit: "
            "AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return NoSuchInterfaceError(
            f"cannot listen on {address}: no network interface of this machine has that address. "
            'Choose one that it has, or "0.0.0.0" for all'
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return AddressError(
            f"cannot listen on {address}: too many open files. Raise the limit (ulimit -n, or "
            "LimitNOFILE= in a systemd unit)"
        )
    return AddressError(f"cannot listen on {address}: {error.strerror or error}")


def _first_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def real(address: Tcp, sock: socket.socket) -> Tcp:
    """Return `address` with the port that `sock` got."""
    return Tcp(address.host, sock.getsockname()[1])


def holder(address: Tcp) -> str | None:
    """Return who listens on the port, as far as this user may see it."""
    import psutil  # heavy, and only needed for this sentence

    try:
        connections = psutil.net_connections("tcp")
        for connection in connections:
            if connection.status != psutil.CONN_LISTEN or connection.laddr[1:] != (address.port,):
                continue
            if connection.pid is None:
                continue
            process = psutil.Process(connection.pid)
            if connection.pid == os.getpid():
                return "this supervisor itself"
            return f"process {connection.pid} ({process.name()})"
    except (psutil.Error, OSError):
        pass
    return None
