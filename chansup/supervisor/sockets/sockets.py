"""The sockets that clients connect to: opened once, kept through restarts, shared out to slots.

On TCP every slot has a listener of its own in one SO_REUSEPORT group, and a program says which of
them get new connections (`steering`). A Unix socket, one that systemd passed, and TCP where the
kernel refuses the program, cannot be split: all slots share them.

An index in a group is a place in the order in which its listeners began to listen, and closing one
moves the last into its place; so listeners are only ever closed from the end. Sources: socket(7),
tcp(7), unix(7), and ``net/core/sock_reuseport.c`` for the order.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path

import psutil

from chansup.config.address import MAX_UNIX_PATH, Address, Systemd, Tcp, Unix
from chansup.supervisor.errors import AddressError
from chansup.supervisor.runtime.file_identity import FileIdentity, Presence
from chansup.supervisor.sockets import steering
from chansup.supervisor.sockets.ownership import Ownership
from chansup.supervisor.sockets.socket_file import SocketFile
from chansup.supervisor.sockets.steering import Instruction, SteeringRefused
from chansup.supervisor.sockets.systemd import InheritedSockets

BACKLOG = 2048  # connections that may wait; the kernel takes net.core.somaxconn if that is less
_ATTEMPTS_AT_ANY_PORT = 8


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

        Raises AddressError when somebody else listens there, or SteeringRefused.
        """
        if not steering.supported():
            raise SteeringRefused("this kernel takes no program to steer connections with")
        first = _listen(address, backlog, dual_stack)
        # SO_REUSEPORT would let a second process of the same user join in silently. So the first
        # listener claims the port for itself alone, and admits others only then.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return cls(first, _real(address, first), backlog, dual_stack)

    def ensure(self, slots: int) -> None:
        """Have a listener for each of so many slots. Closes none. Raises AddressError."""
        self._slots = max(slots, 1)
        while len(self._sockets) < self._slots:
            self._sockets.append(
                _listen(self.address, self._backlog, self._dual_stack, reuse_port=True)
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

        Cheap to call: nothing happens unless the choice changes. Raises SteeringRefused.
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
            _shut(sock)

    def close(self) -> None:
        """Stop listening."""
        while self._sockets:
            self._sockets.pop().close()


class SharedSocket(Listeners):
    """One listening socket for all slots."""

    steered = False

    def __init__(
        self, sock: socket.socket, address: Address, file: SocketFile | None = None
    ) -> None:
        self.address: Address = address
        self._socket = sock
        self._file = file  # if we made one
        self._passed: tuple[str, FileIdentity] | None = None  # a file that systemd made
        self._again: Callable[[], SharedSocket] | None = None  # makes a new one like this

    @classmethod
    def tcp(
        cls, address: Tcp, backlog: int = BACKLOG, *, dual_stack: bool = False
    ) -> "SharedSocket":
        """Listen on `address`, whose host must be numeric. Raises AddressError."""
        sock = _listen(address, backlog, dual_stack)
        return cls(sock, _real(address, sock))

    @classmethod
    def unix(
        cls,
        address: Unix,
        backlog: int = BACKLOG,
        ownership: Ownership = Ownership(),  # noqa: B008 - it cannot change
    ) -> "SharedSocket":
        """Listen on an absolute path. A file that a dead process left is replaced.

        A directory that is missing is made. Raises AddressError.
        """
        path = Path(address.path)
        _make_directory(path.parent, ownership, address)
        _require_vacant(path)
        # Listen under another name and rename: clients see either the old file or a socket that
        # listens and has its mode. And servers that unlink the name they were bound to miss ours.
        private = path.with_name(f".{secrets.token_hex(3)}")
        _require_short(private, path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(private))
            status = os.lstat(private)
            identity = (status.st_dev, status.st_ino)
            try:
                ownership.give(private, identity)
            except OSError as error:
                raise AddressError(_not_given(address, error)) from None
            sock.listen(backlog)
            sock.setblocking(False)
            os.rename(private, path)
            made = cls(sock, address, SocketFile(path))
        except (OSError, AddressError) as error:
            sock.close()
            with contextlib.suppress(OSError):
                os.unlink(private)
            if isinstance(error, AddressError):
                raise
            raise AddressError(
                f"cannot listen on {address}: {_explain_path(error, path)}"
            ) from None
        made._again = partial(cls.unix, address, backlog, ownership)
        return made

    @classmethod
    def adopt(cls, sock: socket.socket, address: Address) -> "SharedSocket":
        """Take a socket that listens already."""
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = cls(sock, address)
        if sock.family == socket.AF_UNIX:
            name = sock.getsockname()
            with contextlib.suppress(OSError):
                if isinstance(name, str) and name.startswith("/"):
                    made._passed = (name, FileIdentity.of(name))
        return made

    def ensure(self, slots: int) -> None:
        """Do nothing: one socket is enough for any number of slots."""

    def shrink(self, slots: int) -> None:
        """Do nothing: the socket is everybody's."""

    def socket_of(self, slot: int) -> socket.socket:
        """Return the listening socket that the processes of any slot inherit."""
        return self._socket

    def steer(self, ready: Sequence[int], weights: Sequence[int] | None = None) -> None:
        """Do nothing: whichever process accepts first gets the connection."""

    def adjust(self, backlog: int, ownership: Ownership) -> None:
        """Take over backlog, mode and owner; what systemd passed is systemd's.

        Raises AddressError.
        """
        if isinstance(self.address, Systemd):
            return
        self._socket.listen(backlog)
        if self._file is not None and isinstance(self.address, Unix):
            try:
                ownership.give(self.address.path, self._file.identity)
            except FileNotFoundError:  # somebody removed it
                pass
            except OSError as error:
                raise AddressError(_not_given(self.address, error)) from None
            self._again = partial(SharedSocket.unix, self.address, backlog, ownership)

    def presence(self) -> Presence:
        """Return what stands at the path of a Unix socket."""
        if self._file is not None:
            return self._file.presence()
        if self._passed is not None:
            path, identity = self._passed
            return identity.presence_at(path)
        return Presence.OURS

    def restore(self, *, close_former: bool = True) -> bool:
        """Make a socket file that vanished again; whether it belongs to a new socket.

        Raises AddressError when it cannot be made.
        """
        if self._file is None or self._again is None or self.presence() is not Presence.MISSING:
            return False
        if self._file.relink():
            return False
        try:
            self._file.restore_directory()
        except OSError as error:
            explained = _explain_path(error, self._file.path)
            raise AddressError(f"cannot listen on {self.address}: {explained}") from None
        fresh = self._again()
        self._file.remove()  # the second name, where only that is left
        if close_former:
            self._socket.close()  # who inherited it finishes what waits there
        self._socket, self._file, self._again = fresh._socket, fresh._file, fresh._again
        self.opened = time.monotonic()
        return True

    def refuse(self) -> None:
        """Refuse new connections from now on, unless systemd keeps listening."""
        if not isinstance(self.address, Systemd):
            _shut(self._socket)

    def close(self) -> None:
        """Stop listening; remove the socket file if it is still ours."""
        if self._file is not None:
            self._file.remove()
            self._file = None
        self._socket.close()


def _shut(sock: socket.socket) -> None:
    # shutdown(2) on a listening socket ends listening for all who share it; Linux, TCP and Unix.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)


def overlap(asked: Address, present: Iterable[Listeners]) -> AddressError | None:
    """Return what to say if `asked` failed because of an address that this site listens on."""
    ports = {one.address.port for one in present if isinstance(one.address, Tcp)}
    if not isinstance(asked, Tcp) or asked.port not in ports:
        return None
    return AddressError(
        f"cannot listen on {asked}: it overlaps with an address that this site listens on. "
        "`chansup stop` and `chansup run` change such an address, or choose another port"
    )


async def open_listeners(
    address: Address,
    *,
    directory: Path = Path(),
    backlog: int = BACKLOG,
    ownership: Ownership = Ownership(),  # noqa: B008 - it cannot change
    steer: bool = True,
    inherited: InheritedSockets | None = None,
    beside: Collection[Address] = (),
) -> list[Listeners]:
    """Listen on `address` and return what listens: several for a name with several addresses.

    Unix paths are relative to `directory`, and their files get `ownership`. `inherited` are the
    sockets that systemd passed. `beside` are the other addresses of the same pool: "[::]:8000"
    takes IPv4 connections too, unless "0.0.0.0:8000" stands beside it. Raises AddressError;
    nothing stays open then.
    """
    if isinstance(address, Unix):
        return [SharedSocket.unix(Unix(str(address.within(directory))), backlog, ownership)]
    if isinstance(address, Systemd):
        passed = inherited.take(address.name) if inherited is not None else []
        if not passed:
            raise AddressError(_not_passed(address))
        return [SharedSocket.adopt(sock, address) for sock in passed]
    hosts = await _resolve(address)
    dual_stack = address.host == "::" and Tcp("0.0.0.0", address.port) not in beside
    try:
        return _open_tcp(address, hosts, backlog, steer, dual_stack)
    except _PortTakenError as error:
        # Looking through every process takes a while; the loop continues meanwhile.
        holder = await asyncio.to_thread(_holder, error.address)
        raise AddressError(error.describe(address, holder)) from None


class _PortTakenError(AddressError):
    """Somebody listens there. Found by `open_listeners`, which then looks for the holder."""

    def __init__(self, address: Tcp) -> None:
        self.address = address
        super().__init__(self.describe(address, None))

    def describe(self, asked: Tcp, holder: str | None) -> str:
        """Return the message, for the address as the config has it."""
        held = f"{holder} already listens there" if holder else "the port is already in use"
        return f"cannot listen on {asked}: {held}. Stop it, or choose another port"


async def _resolve(address: Tcp) -> list[str]:
    """Return the numeric hosts of `address`. A literal address costs no thread and no query."""
    kind, protocol = socket.SOCK_STREAM, socket.IPPROTO_TCP
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=kind, proto=protocol, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                address.host, address.port, type=kind, proto=protocol, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise AddressError(
                f"cannot listen on {address}: the host name is unknown ({reason})"
            ) from None
    hosts = [str(sockaddr[0]) for family, _, _, _, sockaddr in found if family in _FAMILIES]
    return list(dict.fromkeys(hosts))


_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _open_tcp(
    address: Tcp, hosts: list[str], backlog: int, steer: bool, dual_stack: bool
) -> list[Listeners]:
    steer = steer and steering.supported()
    for attempt in range(_ATTEMPTS_AT_ANY_PORT):
        opened: list[Listeners] = []
        port = address.port
        missing: AddressError | None = None
        try:
            for host in hosts:
                place = Tcp(host, port)
                try:
                    one: Listeners = (
                        SteeredGroup.open(place, backlog, dual_stack=dual_stack)
                        if steer
                        else SharedSocket.tcp(place, backlog, dual_stack=dual_stack)
                    )
                except _NoSuchInterfaceError as error:
                    missing = error  # "localhost" is also ::1, even where there is no IPv6
                    continue
                opened.append(one)
                assert isinstance(one.address, Tcp)
                port = one.address.port  # port 0: the others share what the first one got
        except AddressError as error:
            for one in opened:
                one.close()
            any_port_taken = address.port == 0 and port != 0 and isinstance(error, _PortTakenError)
            if any_port_taken and attempt < _ATTEMPTS_AT_ANY_PORT - 1:
                continue
            raise
        if not opened and missing is not None:
            raise missing
        return opened
    raise AssertionError("the last attempt returns or raises")


class _NoSuchInterfaceError(AddressError):
    """The machine does not have this address, or not this family of addresses."""


def _listen(
    address: Tcp, backlog: int, dual_stack: bool, *, reuse_port: bool = False
) -> socket.socket:
    """Return a listening, non-blocking TCP socket. Raises AddressError."""
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
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _refusal(error, address) from None
    return sock


def _refusal(error: OSError, address: Tcp) -> AddressError:
    if error.errno == errno.EADDRINUSE:
        return _PortTakenError(address)
    if error.errno == errno.EACCES:
        return AddressError(
            f"cannot listen on {address}: ports below {_first_free_port()} need a privilege. "
            "Choose a higher port, or grant CAP_NET_BIND_SERVICE (in a systemd unit: "
            "AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return _NoSuchInterfaceError(
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


def _real(address: Tcp, sock: socket.socket) -> Tcp:
    return Tcp(address.host, sock.getsockname()[1])


def _holder(address: Tcp) -> str | None:
    """Return who listens on the port, as far as this user may see it."""
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


_OTHER_PATH = "Remove it, or choose another path"


def _require_vacant(path: Path) -> None:
    """Raise AddressError unless `path` is free or a socket that nobody listens on."""
    name = f"cannot listen on unix:{path}"
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressError(f"{name}: {_explain_path(error, path)}") from None
    if not stat.S_ISSOCK(kind):
        raise AddressError(
            f"{name}: path exists and is not a socket: remove it, or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:  # its queue is full, so it lives
            pass
        except OSError as error:
            raise AddressError(
                f"{name}: a socket stands there that cannot be tried ({error.strerror}). "
                f"{_OTHER_PATH}"
            ) from None
    raise AddressError(
        f"{name}: another process already listens there. Stop it, or choose another path"
    )


def _require_short(private: Path, path: Path) -> None:
    length = max(len(os.fsencode(private)), len(os.fsencode(path)))
    if length > MAX_UNIX_PATH:
        raise AddressError(
            f"cannot listen on unix:{path}: the path is too long, a Unix socket's has at most "
            f"{MAX_UNIX_PATH} bytes. Choose a shorter one"
        )


def _make_directory(directory: Path, ownership: Ownership, address: Unix) -> None:
    try:
        ownership.make_directory(directory)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(
            f"cannot listen on {address}: the directory {directory} does not exist, and cannot be"
            f" made ({reason}). Create it"
        ) from None


def _not_given(address: Unix, error: OSError) -> str:
    reason = error.strerror or str(error)
    remedy = (
        ": only root with CAP_CHOWN may. Unset [interface] unix_owner and unix_group, or add the"
        " capability to CapabilityBoundingSet= of the unit"
        if error.errno == errno.EPERM
        else ""
    )
    return f"cannot set mode and owner of {address} ({reason}){remedy}"


def _explain_path(error: OSError, path: Path) -> str:
    if error.errno == errno.ENOENT:
        return f"the directory {path.parent} does not exist. Create it"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the directory {path.parent} is not writable ({error.strerror})"
    return error.strerror or str(error)


def _not_passed(address: Systemd) -> str:
    which = f"no socket named {address.name}" if address.name else "no socket"
    remedy = "Start chansup through its .socket unit"
    if address.name:
        remedy += f" with FileDescriptorName={address.name}"
    return f"cannot listen on {address}: systemd passed {which}. {remedy}"
