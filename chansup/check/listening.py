"""Whether an address can be listened on, right now and by this user."""

import errno
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

from chansup.config.address import Address, Tcp, Unix
from chansup.config.keys import quoted

_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def obstacle(
    place: Tcp | Unix, config_directory: Path, beside: Collection[Address] = ()
) -> str | None:
    """Return why nobody could listen there, or None. Nothing stays open, nothing is left behind.

    `beside` are the other addresses of the same config: "[::]" takes IPv4 connections too, unless
    "0.0.0.0" with the same port is among them.
    """
    if isinstance(place, Unix):
        return _unix_obstacle(place.within(config_directory))
    return _tcp_obstacle(place, place.host == "::" and Tcp("0.0.0.0", place.port) not in beside)


def _tcp_obstacle(place: Tcp, dual_stack: bool) -> str | None:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"the host {quoted(place.host)} cannot be resolved: write an address of this machine"
    missing = None
    usable = False
    for family, kind, protocol, _, target in found:
        try:
            with socket.socket(family, kind, protocol) as listener:
                # As a server does, so that connections of the past are not in the way. Without
                # SO_REUSEPORT: what another program shares is still in use. No listen(): nobody
                # is to connect to this.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
                listener.bind(target)
            usable = True
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return _tcp_reason(error, place)
            missing = error  # "localhost" is also ::1, even where there is no IPv6
    return None if usable or missing is None else _tcp_reason(missing, place)


def _tcp_reason(error: OSError, place: Tcp) -> str:
    if error.errno == errno.EADDRINUSE:
        holder = _holder(place.port)
        who = f"is in use by {holder}" if holder else "is in use by a process of somebody else"
        return f"{place} {who}: stop it, or choose another port"
    if error.errno == errno.EACCES:
        return (
            f"ports below {_first_unprivileged_port()} need root or CAP_NET_BIND_SERVICE "
            "(in a systemd unit, AmbientCapabilities=): choose a higher port, or let systemd "
            "pass the socket"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return (
            f"{place.host} is not an address of this machine: write 0.0.0.0 or [::] for all it has"
        )
    return f"cannot be listened on: {error.strerror}"


def _first_unprivileged_port() -> int:
    try:
        return int(_UNPRIVILEGED.read_text())
    except (OSError, ValueError):
        return 1024


def _holder(port: int) -> str | None:
    """Return who listens on a port, as far as this user may know."""
    import psutil  # heavy, and only needed for this sentence

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline()) or process.name()
                return f"{quoted(command, limit=60)} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return None


def _unix_obstacle(path: Path) -> str | None:
    parent = path.parent
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent  # those that are missing are made
    if not os.path.isdir(parent):
        return f"{quoted(str(parent), limit=300)} is not a directory: name another path"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"the directory {quoted(str(parent), limit=300)} cannot be written to"
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{quoted(str(path), limit=300)} cannot be looked at: {error.strerror}"
    if not stat.S_ISSOCK(mode):
        return f"{quoted(str(path), limit=300)} exists and is not a socket: remove or rename it"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            pass  # its queue is full, so it has one
        except OSError:
            return None  # nobody listens any more: a leftover, which is replaced
    return f"{quoted(str(path), limit=300)} is in use by another program: stop it"
