"""Rules of the addresses to listen on."""

import os
from collections.abc import Iterator
from pathlib import Path

from chansup.config import address
from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Config
from chansup.unix import MAX_PATH


def written(config: Config) -> list[tuple[Key, str]]:
    """Return every address to listen on as it stands in the file, with its key."""
    found: list[tuple[Key, str]] = []
    if config.interface is not None:
        bind = config.interface.bind
        if isinstance(bind, str):
            found.append((("interface", "bind"), bind))
        else:
            found.extend((("interface", "bind", place), text) for place, text in enumerate(bind))
    if config.admin.bind:
        found.append((("admin", "bind"), config.admin.bind))
    return found


def rule(context: Context) -> Iterator[Finding]:
    """Every address can be understood, is not another's, and fits the kernel's limits."""
    interface = context.config.interface
    if interface is not None and interface.bind == []:
        yield ("interface", "bind"), 'expected at least one address, as in "127.0.0.1:8000"'
    earlier: list[tuple[str, address.Address]] = []
    for key, text in written(context.config):
        try:
            place = address.parse(text)
        except ValueError as error:
            yield key, str(error)
            continue
        yield from _fit(key, place, context.config_directory)
        for other, taken in earlier:
            if _same(place, taken, context.config_directory):
                yield key, f"is the same address as {quoted(other)}: remove one"
                break
        earlier.append((text, place))


def _fit(key: Key, place: address.Address, directory: Path) -> Iterator[Finding]:
    if key[0] == "admin" and isinstance(place, address.Systemd):
        yield key, 'cannot come from systemd: write "127.0.0.1:9180" or "unix:run/admin.sock"'
    if isinstance(place, address.Unix):
        path = place.within(directory)
        length = len(os.fsencode(path))
        if length > MAX_PATH:
            message = (
                f"{quoted(str(path), limit=300)} has {length} bytes, and the path of a Unix socket "
                f"can have {MAX_PATH}: use a shorter one, in /run for example"
            )
            yield key, message


def _same(first: address.Address, second: address.Address, directory: Path) -> bool:
    match first, second:
        case address.Tcp(port=0), _:
            return False
        case address.Tcp(), address.Tcp():
            return first.port == second.port and _numeric(first.host) == _numeric(second.host)
        case address.Unix(), address.Unix():
            paths = [os.path.normpath(place.within(directory)) for place in (first, second)]
            return paths[0] == paths[1]
        case address.Systemd(), address.Systemd():
            return first.name is None or second.name is None or first.name == second.name
    return False


def _numeric(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def public_admin(context: Context) -> Iterator[Finding]:
    """An admin address that other machines reach."""
    text = context.config.admin.bind
    place = address.parse(text) if text else None
    if isinstance(place, address.Tcp) and not place.is_loopback:
        message = (
            f"{quoted(str(text))} is open to other machines, and asks for no password: "
            "let a firewall keep strangers out, or write 127.0.0.1"
        )
        yield ("admin", "bind"), message
