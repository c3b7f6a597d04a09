"""Which groups the channels of this process are in: a hub that knows nothing has to be told."""

import time
from collections.abc import Iterable, Iterator

from chansup.layer.frames import AGE, Kind, pack, string

_FEW = 500  # that there may be before it is worth looking for expired ones


class Memberships:
    """Groups of channels, and since when."""

    def __init__(self) -> None:
        self._groups: dict[bytes, dict[bytes, float]] = {}  # by channel
        self._prune_at = _FEW

    def __contains__(self, channel: bytes) -> bool:
        return channel in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def are_many(self) -> bool:
        """Whether it is worth looking for expired ones."""
        return len(self._groups) >= self._prune_at

    def add(self, group: bytes, channel: bytes) -> None:
        """Add a channel to a group, from now on."""
        self._groups.setdefault(channel, {})[group] = time.monotonic()

    def discard(self, group: bytes, channel: bytes) -> bool:
        """Remove a channel from a group. Return whether that was its last one."""
        groups = self._groups.get(channel)
        if groups is None:
            return False
        groups.pop(group, None)
        if groups:
            return False
        del self._groups[channel]
        return True

    def pop(self, channel: bytes) -> Iterable[bytes]:
        """Forget a channel, and return the groups that it was in."""
        return self._groups.pop(channel, ())

    def expire(self, seconds: float) -> list[bytes]:
        """Forget what the hub has forgotten. Return the channels that are in no group any more."""
        ended = time.monotonic() - seconds
        gone = []
        for channel, groups in list(self._groups.items()):
            kept = {group: began for group, began in groups.items() if began > ended}
            if kept:
                self._groups[channel] = kept
            else:
                del self._groups[channel]
                gone.append(channel)
        self._prune_at = max(_FEW, 2 * len(self._groups))
        return gone

    def frames(self, kind: int) -> Iterator[bytes]:
        """Yield what tells a hub all of them."""
        now = time.monotonic()
        for channel, groups in self._groups.items():
            for group, began in groups.items():
                yield added(group, channel, now - began, kind)

    def clear(self) -> None:
        """Forget all."""
        self._groups.clear()


def added(group: bytes, channel: bytes, age: float = 0, kind: int = Kind.GROUP_ADD) -> bytes:
    """Return the request to add a channel to a group. `age`: seconds that it has been a member."""
    return pack(kind, AGE.pack(int(age)) + string(group) + string(channel))


def discarded(group: bytes, channel: bytes) -> bytes:
    """Return the request to remove a channel from a group."""
    return pack(Kind.GROUP_DISCARD, string(group) + string(channel))
