"""Whether one WebSocket is poison: how many workers in a row died with something of it in hand."""

import logging
from collections.abc import Hashable

from chansup.protocol import relay_board as board
from chansup.relay.interface.quarantine import MAX_DEATHS, SUSPICIOUS
from chansup.relay.interface.standing import Standing

_log = logging.getLogger("chansup.relay")


class Suspicion:
    """What there is against one WebSocket."""

    __slots__ = ("_deaths", "_standing", "_suspect")

    def __init__(self, standing: Standing, suspect: Hashable) -> None:
        """`suspect`: what the quarantine knows the WebSocket as."""
        self._standing = standing
        self._suspect = suspect
        self._deaths = 0

    @property
    def is_strong(self) -> bool:
        """Whether so many workers died with it that it is tried alone."""
        return self._deaths >= SUSPICIOUS

    def died_again(self) -> bool:
        """Count a worker that died. Say whether the WebSocket is poison."""
        pool = self._standing.pool
        self._deaths += 1
        pool.quarantine.leave(self._suspect)
        if self._deaths < MAX_DEATHS:
            return False
        pool.counters.add(board.POISON)
        _log.error(
            "poison: WebSocket %s: %d workers of %s died with it, it is closed",
            self._standing.host_and_path()[1],
            self._deaths,
            pool.settings.name,
        )
        return True

    def survived(self) -> None:
        """Take notice that a worker has survived it."""
        if self._deaths:
            self._deaths = 0
            self._standing.pool.quarantine.leave(self._suspect)

    def end(self) -> None:
        """Let the next suspect be tried: the WebSocket ends."""
        if self._deaths:
            self._standing.pool.quarantine.leave(self._suspect)
