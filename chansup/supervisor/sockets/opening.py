"""Listening on what the config says: `open_listeners`."""

import asyncio
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from chansup.config.address import Address, Systemd, Tcp, Unix
from chansup.supervisor.errors import AddressError
from chansup.supervisor.sockets import steering
from chansup.supervisor.sockets.listeners import BACKLOG, Listeners
from chansup.supervisor.sockets.shared import SharedSocket
from chansup.supervisor.sockets.steered import SteeredGroup
from chansup.supervisor.sockets.systemd import InheritedSockets
from chansup.supervisor.sockets.tcp import NoSuchInterfaceError, PortTakenError, bind, holder
from chansup.supervisor.sockets.unix_path import require_usable
from chansup.unix import Ownership

_ATTEMPTS_AT_ANY_PORT = 8


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
    try:
        return _open_tcp(address, hosts, backlog, steer, _is_dual_stack(address, beside))
    except PortTakenError as error:
        raise await _taken(error, address) from None


async def try_to_open(
    address: Address, *, directory: Path = Path(), beside: Collection[Address] = ()
) -> None:
    """Raise AddressError where `open_listeners` would, which takes the same arguments.

    Nobody can connect meanwhile, and nothing is left behind. Sockets of systemd are not tried.
    """
    if isinstance(address, Unix):
        require_usable(address.within(directory))
    elif isinstance(address, Tcp):
        hosts = await _resolve(address)
        try:
            _bind(address, hosts, _is_dual_stack(address, beside))
        except PortTakenError as error:
            raise await _taken(error, address) from None


def _bind(address: Tcp, hosts: list[str], dual_stack: bool) -> None:
    missing: AddressError | None = None
    bound = 0
    for host in hosts:
        try:
            # Without SO_REUSEPORT: what another program shares is still in use.
            bind(Tcp(host, address.port), dual_stack).close()
            bound += 1
        except NoSuchInterfaceError as error:
            missing = error  # as in _open_tcp
    if missing is not None and not bound:
        raise missing


def _is_dual_stack(address: Tcp, beside: Collection[Address]) -> bool:
    return address.host == "::" and Tcp("0.0.0.0", address.port) not in beside


async def _taken(error: PortTakenError, asked: Tcp) -> AddressError:
    # Looking through every process takes a while; the loop continues meanwhile.
    return AddressError(error.describe(asked, await asyncio.to_thread(holder, error.address)))


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
                except NoSuchInterfaceError as error:
                    missing = error  # "localhost" is also ::1, even where there is no IPv6
                    continue
                opened.append(one)
                assert isinstance(one.address, Tcp)
                port = one.address.port  # port 0: the others share what the first one got
        except AddressError as error:
            for one in opened:
                one.close()
            any_port_taken = address.port == 0 and port != 0 and isinstance(error, PortTakenError)
            if any_port_taken and attempt < _ATTEMPTS_AT_ANY_PORT - 1:
                continue
            raise
        if not opened and missing is not None:
            raise missing
        return opened
    raise AssertionError("the last attempt returns or raises")


def _not_passed(address: Systemd) -> str:
    which = f"no socket named {address.name}" if address.name else "no socket"
    remedy = "Start chansup through its .socket unit"
    if address.name:
        remedy += f" with FileDescriptorName={address.name}"
    return f"cannot listen on {address}: systemd passed {which}. {remedy}"
