"""What a stream needs of the interface process and the worker that it is in, and no more."""

import asyncio
from collections.abc import MutableMapping
from typing import Any, Protocol

from chansup.relay.appworker.counters import Counters
from chansup.relay.appworker.orphans import Orphans
from chansup.relay.credits import Budget
from chansup.relay.link import Link


class WorkerContext(Protocol):
    """The worker, as its streams see it."""

    @property
    def orphans(self) -> Orphans:
        """The apps whose clients have left."""

    @property
    def hurries(self) -> bool:
        """Whether time is nearly up."""

    @property
    def cutting(self) -> bool:
        """Whether time is up."""


class StreamContext(Protocol):
    """The interface process that a stream comes from, as the stream sees it."""

    link: Link
    budget: Budget

    @property
    def protocol(self) -> int:
        """The version of the frames that both sides speak."""

    @property
    def worker(self) -> WorkerContext:
        """The worker that the app runs in."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that all runs in."""

    @property
    def counters(self) -> Counters:
        """The counts of the worker."""

    def ended(self, stream: int) -> None:
        """Forget a stream whose app has returned."""

    def let_go(self, stream: int) -> None:
        """Have the interface forget a stream whose client is gone; the app may continue."""

    def report(self, scope: MutableMapping[str, Any], error: BaseException) -> None:
        """Write the traceback of an app that raised."""
