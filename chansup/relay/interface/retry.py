"""One request whose worker died: whether another one may have it, and when."""

import asyncio
import logging
from collections.abc import Hashable

from chansup.protocol import relay_board as board
from chansup.relay import scopes
from chansup.relay.interface.answers import EXPLANATIONS, answer
from chansup.relay.interface.headers import Scope
from chansup.relay.interface.pool import Pool
from chansup.relay.interface.quarantine import MAX_DEATHS, SUSPICIOUS
from chansup.relay.interface.response import Send
from chansup.waiters import wake

_log = logging.getLogger("chansup.relay")


class Retry:
    """The attempts at one request, from the first death on."""

    __slots__ = ("_deaths", "_scope", "_send", "_suspect")

    def __init__(self, suspect: Hashable, scope: Scope, send: Send) -> None:
        """`suspect`: what the quarantine knows the request as."""
        self._suspect = suspect
        self._scope = scope
        self._send = send
        self._deaths = 0  # of workers that had it in hand

    async def is_allowed(
        self, pool: Pool, *, delivered: bool, redeliver: bool, repeatable: bool
    ) -> bool:
        """After a death: say whether another worker may have it. If not, answer.

        `delivered`: the dead worker's app knew of it. `redeliver`: it may have one anyway.
        `repeatable`: all that came of its body is still there.
        """
        counters = pool.counters
        safe = self._scope["method"] in scopes.SAFE_METHODS
        if safe or delivered:
            self._deaths += 1
            pool.quarantine.leave(self._suspect)
        if self._deaths >= MAX_DEATHS:
            counters.add(board.POISON)
            _log.error(
                "poison: %s %s: %d workers of %s died with it, it is not tried again",
                self._scope["method"],
                self._scope["path"],
                self._deaths,
                pool.settings.name,
            )
        elif (safe or not delivered or redeliver) and repeatable:
            return True
        counters.add(board.FAILED)
        await answer(self._scope, self._send, 502, "the process that worked on it died")
        return False

    @property
    def is_suspect(self) -> bool:
        """Whether so many workers died with it that it is tried alone."""
        return self._deaths >= SUSPICIOUS

    async def wait_for_turn(self, pool: Pool, turn: asyncio.Future[None]) -> bool:
        """Wait until no other suspect is tried, or `turn` ends. If it takes too long, answer."""
        pool.quarantine.enter(self._suspect, lambda: wake(turn))
        try:
            async with asyncio.timeout(pool.settings.queue_timeout):
                await turn
        except TimeoutError:
            pool.counters.rejected("late")
            await answer(self._scope, self._send, 503, EXPLANATIONS["late"], retry_after=1)
            return False
        return True

    def end(self, pool: Pool) -> None:
        """Let the next suspect be tried: the request ends."""
        if self._deaths:
            pool.quarantine.leave(self._suspect)
