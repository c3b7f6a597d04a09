"""The addresses of the interface: opened before a generation needs them, closed after the last."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from chansup.config import accounts, address, schema
from chansup.supervisor.errors import AddressError
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.sockets import steering
from chansup.supervisor.sockets.listeners import Listeners
from chansup.supervisor.sockets.opening import open_listeners, overlap
from chansup.supervisor.sockets.systemd import InheritedSockets
from chansup.unix import Ownership, Presence


class Accepting(Protocol):
    """A process that accepts from listening sockets."""

    @property
    def specification(self) -> PoolSpecification:
        """What it runs; `binds` are the addresses that it inherited."""

    @property
    def started_monotonic(self) -> float:
        """When it was started (CLOCK_MONOTONIC)."""


class Choice(Protocol):
    """A slot that new connections can be sent to."""

    @property
    def number(self) -> int:
        """Its place in the pool, and in each group of listeners."""

    @property
    def current(self) -> Accepting | None:
        """The process in it."""

    @property
    def serves(self) -> bool:
        """Whether that process is ready."""

    @property
    def avoided(self) -> bool:
        """Whether it gets no new connections while others can have them."""

    @property
    def accepts(self) -> bool:
        """Whether that process takes connections: else clients wait, or are refused."""

    def held(self) -> int:
        """Return how many requests and WebSockets it holds."""


class Addresses:
    """The listening sockets behind each `bind` of the config."""

    def __init__(self, directory: Path, systemd: InheritedSockets) -> None:
        self._directory = directory  # that paths of Unix sockets are relative to
        self._systemd = systemd
        self._listeners: dict[str, list[Listeners]] = {}

    def of(self, bind: str) -> list[Listeners]:
        """Return the sockets of an open address: several for a host name with several addresses."""
        return self._listeners[bind]

    def names(self) -> list[str]:
        """Return where it listens, with real port numbers."""
        return [str(one.address) for group in self._listeners.values() for one in group]

    def listeners(self) -> list[Listeners]:
        """Return everything that listens."""
        return [one for group in self._listeners.values() for one in group]

    def unreachable(self, ready: Iterable[Accepting]) -> list[str]:
        """Return why clients cannot reach an address, one line each. `ready` processes serve."""
        serving = list(ready)
        reasons = []
        for bind, group in self._listeners.items():
            for one in group:
                if one.presence() is not Presence.OURS:
                    reasons.append(f"{one.address}: its socket file is gone")
                elif one.opened and not any(
                    bind in process.specification.binds and process.started_monotonic > one.opened
                    for process in serving
                ):
                    reasons.append(f"{one.address}: no process listens on its new socket yet")
        return reasons

    def is_stale(self, process: Accepting) -> bool:
        """Whether `process` listens on a socket whose file was made again for another."""
        return any(
            one.opened > process.started_monotonic
            for bind in process.specification.binds
            for one in self._listeners.get(bind, ())
        )

    @property
    def steered(self) -> bool:
        """Whether any address can be steered."""
        return any(one.steered for group in self._listeners.values() for one in group)

    @property
    def has_choice(self) -> bool:
        """Whether new connections can be kept away from a single slot."""
        return any(one.slots > 1 for group in self._listeners.values() for one in group)

    async def open(
        self, interface: schema.Interface, binds: Sequence[str], slots: int
    ) -> list[str]:
        """Open those of `binds` that are not open; return them. Raises AddressError, opens none."""
        opened: list[str] = []
        ownership = _ownership(interface)
        try:
            for bind in binds:
                if bind in self._listeners:
                    for one in self._listeners[bind]:
                        one.adjust(interface.backlog, ownership)
                    continue
                asked = address.parse(bind)
                try:
                    group = await open_listeners(
                        asked,
                        directory=self._directory,
                        backlog=interface.backlog,
                        ownership=ownership,
                        steer=interface.steering == "auto",
                        inherited=self._systemd,
                        beside=[address.parse(other) for other in binds if other != bind],
                    )
                except AddressError as error:
                    present = [one for group in self._listeners.values() for one in group]
                    raise overlap(asked, present) or error from None
                self._listeners[bind] = group
                opened.append(bind)
                for one in group:
                    one.ensure(slots)
        except BaseException:
            self.close(opened)
            raise
        return opened

    def close(self, binds: Iterable[str]) -> None:
        """Close addresses that no process listens on any more."""
        for bind in list(binds):
            for one in self._listeners.pop(bind):
                one.close()

    def close_all_but(self, binds: Iterable[str]) -> None:
        """Close open listeners that are not named."""
        self.close(set(self._listeners) - set(binds))

    def refuse(self) -> None:
        """Refuse new connections at once: nobody is going to accept them."""
        for group in self._listeners.values():
            for one in group:
                one.refuse()

    def ensure(self, slots: int) -> None:
        """See that slots 0 … `slots` - 1 have a listener on every address."""
        for group in self._listeners.values():
            for one in group:
                one.ensure(slots)

    def shrink(self, slots: int) -> None:
        """Close the listeners of further slots: nothing is left to accept there."""
        for group in self._listeners.values():
            for one in group:
                one.shrink(slots)

    def steer(self, slots: Sequence[Choice]) -> None:
        """Send new connections to the ready slots, more to those that hold fewer."""
        for bind, group in self._listeners.items():
            listening = [
                slot
                for slot in slots
                if slot.serves and slot.current and bind in slot.current.specification.binds
            ]
            chosen = [slot for slot in listening if not slot.avoided] or listening
            chosen = [slot for slot in chosen if slot.accepts] or chosen
            weights = steering.weights([slot.held() for slot in chosen])
            for one in group:
                one.steer([slot.number for slot in chosen], weights)


def _ownership(interface: schema.Interface) -> Ownership:
    """Return what the file of a Unix socket is to be, as the table says. Raises AddressError."""
    try:
        user, group = accounts.of_socket(
            interface.user, interface.group, interface.unix_owner, interface.unix_group
        )
    except ValueError as error:
        raise AddressError(f"cannot set the owner of a Unix socket: {error}") from None
    return Ownership(int(interface.unix_mode, 8), user, group)
