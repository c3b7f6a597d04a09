"""Addresses to listen on, as `bind` names them.

========================  ======================================================================
``127.0.0.1:8000``        one interface; also ``[::1]:8000``, ``localhost:8000``
``[::]:8000``             all interfaces, IPv6 and IPv4
``:8000``                 all IPv4 interfaces
``8000``                  loopback only
``unix:run/web.sock``     a Unix socket, relative to the directory of the config file: it outlives
                          the release that ``[app] directory`` points to
``systemd``               every socket that systemd passes; ``systemd:NAME`` those of that name
                          (FileDescriptorName= in the socket unit)
========================  ======================================================================
"""

import ipaddress
import re
from pathlib import Path

import msgspec

from chansup.config.keys import quoted

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")
_SYSTEMD_NAME = re.compile(r"[!-9;-~]{1,255}\Z")  # printable ASCII without ":", sd_listen_fds(3)
_FORMS = 'write "0.0.0.0:8000", "[::]:8000", "unix:run/web.sock" or "systemd"'


class Tcp(msgspec.Struct, frozen=True):
    """A TCP port of one interface. Port 0 lets the kernel choose."""

    host: str  # an IPv4 or IPv6 address without brackets, or a host name
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Unix(msgspec.Struct, frozen=True):
    """The path of a Unix socket, absolute or relative to the config file's directory."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def within(self, directory: Path) -> Path:
        """Return the absolute path, given the directory of the config file."""
        return directory / self.path


class Systemd(msgspec.Struct, frozen=True):
    """Sockets that systemd passes: those of one name, or all."""

    name: str | None = None

    def __str__(self) -> str:
        return f"systemd:{self.name}" if self.name else "systemd"


Address = Tcp | Unix | Systemd


def parse(text: str) -> Address:
    """Return the address that `text` names; ValueError says what is wrong with it."""
    if text == "systemd":
        return Systemd()
    if text.startswith("systemd:"):
        return _systemd(text.removeprefix("systemd:"))
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if text.startswith("/") or text.endswith(".sock"):
        raise ValueError(f"{quoted(text)} looks like a Unix socket: write {quoted('unix:' + text)}")
    if "://" in text:
        raise ValueError(f"{quoted(text)} is a URL: {_FORMS}")
    return _tcp(text)


def _systemd(name: str) -> Systemd:
    if not _SYSTEMD_NAME.match(name):
        raise ValueError(
            f"{quoted(name)} is not a name of a systemd socket: write the FileDescriptorName= of "
            'the socket unit, or "systemd" alone for all sockets'
        )
    return Systemd(name)


def _unix(path: str) -> Unix:
    if path.startswith("//"):  # unix:///run/web.sock, as other servers write it
        path = "/" + path.lstrip("/")
    if not path or path.endswith("/"):
        raise ValueError('a Unix socket needs the path of a file: write "unix:run/web.sock"')
    if path.startswith("~"):
        raise ValueError('"~" is not expanded: write "unix:${HOME}/…"')
    return Unix(path)


def _tcp(text: str) -> Tcp:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"{quoted(text)} has no port: {_FORMS}")
        return Tcp("127.0.0.1", _port(text))
    if not host:
        return Tcp("0.0.0.0", _port(port))
    return Tcp(_host(host, text), _port(port))


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    raise ValueError(f"{quoted(text)} is not a port: expected a number from 0 to 65535")


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(f"{quoted(host[1:-1])} is not an IPv6 address: {_FORMS}") from None
        return host[1:-1]
    if ":" in host:
        raise ValueError(f'{quoted(text)}: an IPv6 address needs brackets, as in "[::1]:8000"')
    if host == "*":
        raise ValueError('"*" is not an address: write "0.0.0.0" for IPv4, "[::]" for IPv6')
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{quoted(host)} is not an IPv4 address: {_FORMS}") from None
    elif not _HOST_NAME.match(host):
        raise ValueError(f"{quoted(host)} is not a host: {_FORMS}")
    return host
