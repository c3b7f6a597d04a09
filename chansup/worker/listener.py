"""Receives the messages of one channel, from one place, as long as somebody is free to begin."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable

from chansup.backoff import Backoff
from chansup.tracebacks import last_line
from chansup.worker.permits import Permits, Turn
from chansup.worker.sources import Delivery, Source

_AT_ONCE = 0.02  # seconds within which a message comes that is there
_QUIET = 60.0  # seconds between two lines about the same trouble
_log = logging.getLogger("chansup.worker")


class Listener:
    """`begin` is called with each message, with a permit taken for it."""

    def __init__(
        self,
        source: Source,
        channel: str,
        place: Hashable,
        permits: Permits,
        begin: Callable[[str, Delivery], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.channel = channel
        self._source = source
        self._place = place
        self._permits = permits
        self._turn = Turn()
        self._begin = begin
        self._on_failure = on_failure
        self._taking: asyncio.Task[Delivery | None] | None = None
        self._pause: asyncio.Future[None] | None = None
        self._stopping = False
        self._backoff = Backoff(0.1, cap=10.0)  # since it last received, or waited in peace
        self._told = float("-inf")

    def recall(self) -> None:
        """Take nothing now, where that can be called off."""
        if self._taking is not None and self._source.recallable:
            self._taking.cancel()

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping = True
        # A layer must not lose what is received by somebody who is cancelled; those that take in
        # turns end by themselves.
        if self._taking is not None and not self._source.returns:
            self._taking.cancel()
        self.recall()
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    async def run(self) -> None:
        """Receive until `stop`, whatever the layer raises."""
        while not self._stopping:
            await self._permits.turn(self._turn)
            try:
                delivery = await self._take()
            except Exception as error:
                await self._failed(error)
                continue
            if self._backoff.failures:
                _log.error("chansup: channel %s: receives again", self.channel)
                self._backoff.reset()
            if delivery is not None:
                await self._pass_on(delivery)

    async def _take(self) -> Delivery | None:
        if self._stopping:
            self._permits.ended(self._turn, expects=False)
            return None
        began = time.monotonic()
        more = False
        task = self._taking = asyncio.create_task(self._source.take(self.channel, self._place))
        try:
            await asyncio.wait([task], timeout=_AT_ONCE if self._turn.expects else None)
            if not task.done():
                self._permits.ended(self._turn, expects=False)
                await asyncio.wait([task])
            delivery = None if task.cancelled() else task.result()
            if delivery is not None and delivery.waited is not None:
                more = delivery.waited > time.monotonic() - began
            return delivery
        finally:
            self._taking = None
            # Called off before it was answered: what was known is still known.
            self._permits.ended(
                self._turn, expects=more or (task.cancelled() and self._turn.expects)
            )

    async def _pass_on(self, delivery: Delivery) -> None:
        if self._source.returns and (self._stopping or not self._permits.free):
            delivery.give_back()
            self._turn.expects = True
            return
        await self._permits.wait(self._turn)  # what cannot go back is held meanwhile
        self._begin(self.channel, delivery)

    async def _failed(self, error: Exception) -> None:
        """Count and tell that receiving failed, and pause: longer each time."""
        if self._stopping:
            return
        loop = asyncio.get_running_loop()
        self._on_failure(self.channel)
        if loop.time() - self._told > _QUIET:
            self._told = loop.time()
            _log.error(
                "chansup: channel %s: receive failed, retrying: %s",
                self.channel,
                last_line(error),
            )
        self._pause = loop.create_future()
        await asyncio.wait([self._pause], timeout=self._backoff.next_delay())
        self._pause = None
