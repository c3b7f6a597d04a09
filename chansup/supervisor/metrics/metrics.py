"""``/metrics``: what the supervisor knows, in the formats of Prometheus and OpenMetrics.

Labels are a pool, a slot and values from fixed lists, never a pid, so the number of rows does not
grow with restarts. A row of `chansup_requests_total` or `chansup_websockets_closed_total` that can
be expected is there from the start, at zero, so that `rate()` sees its first increase; methods and
close codes that are rare appear for the whole pool when they are first seen. Pools that count
nothing (background workers, foreign programs) have no such rows at all.

The numbers of the operating system are read, and the text is made, in a thread; prometheus_client
and psutil are imported there by the first scrape.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from chansup.protocol import relay_board, scoreboard
from chansup.protocol.channel_report import CHANNELS
from chansup.protocol.hub_report import HUB, PATTERNS
from chansup.protocol.status import Consumption, Measurement, Status
from chansup.supervisor.carry import counters as carry
from chansup.supervisor.carry.counters import HolderReport
from chansup.supervisor.metrics import children, own
from chansup.supervisor.metrics.families import families
from chansup.supervisor.metrics.readings import CpuClock, LoopLag
from chansup.supervisor.metrics.snapshot import Snapshot

if TYPE_CHECKING:
    from prometheus_client import Metric

PLAIN = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_AGE = 1.0  # seconds that a page is given out again, however often it is asked for


class Counted(Protocol):
    """A supervisor that can be read. Nothing of this blocks."""

    def status(self) -> Status:
        """Return the present state."""

    def measurements(self) -> list[Measurement]:
        """Return the numbers of every slot."""

    def rollouts(self) -> dict[str, tuple[int, float]]:
        """Return for each outcome how many rollouts ended so, and their seconds in total."""

    def relayed(self) -> dict[str, list[float]]:
        """Return the row of the relay board of each pool of app workers, summed."""

    def consumption(self) -> Consumption:
        """Return what channel workers and the hub counted."""

    def carried(self) -> HolderReport | None:
        """Return what the holder of WebSockets counted, if any can outlive their process."""


class Metrics:
    """Makes the page. One scrape runs at a time; who asks meanwhile gets the same page."""

    def __init__(self, counted: Counted, malformed: Callable[[], int] = lambda: 0) -> None:
        """`malformed` returns how many requests to the admin address were not HTTP."""
        self._counted = counted
        self._malformed = malformed
        self._lag = LoopLag()
        self._cpu = CpuClock()
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._pages: dict[bool, tuple[float, asyncio.Future[bytes]]] = {}

    async def page(self, accept: str) -> tuple[bytes, bytes]:
        """Return the page and its content type, chosen by an Accept header."""
        openmetrics = "application/openmetrics-text" in accept
        loop = asyncio.get_running_loop()
        begun, page = self._pages.get(openmetrics, (0.0, None))
        if page is None or (
            page.done() and (loop.time() - begun > MAX_AGE or page.exception() is not None)
        ):
            counted = self._counted
            snapshot = Snapshot(
                counted.status(),
                counted.measurements(),
                counted.rollouts(),
                counted.relayed(),
                counted.consumption(),
                counted.carried(),
                self._lag.take(),
                self._malformed(),
            )
            page = loop.run_in_executor(self._thread, self._render, snapshot, openmetrics)
            self._pages[openmetrics] = loop.time(), page
        # Shielded: that one client leaves must not take the page from the others.
        return await asyncio.shield(page), OPENMETRICS if openmetrics else PLAIN

    def _render(self, snapshot: Snapshot, openmetrics: bool) -> bytes:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest
        from prometheus_client.openmetrics import exposition

        families = self._families(snapshot)

        class Collected:
            def collect(self) -> Iterable["Metric"]:
                return families  # one at a time: a site of many slots has many rows

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collected())
        if openmetrics:
            generate: Callable[[CollectorRegistry], bytes] = exposition.generate_latest
            return generate(registry)
        return generate_latest(registry)

    def _families(self, snapshot: Snapshot) -> Iterator["Metric"]:
        measured = snapshot.measurements
        yield from families((*own.BUILD.declared, *own.SITE.declared), own.site_rows(snapshot))
        yield from families(own.POOLS.declared, own.pool_rows(snapshot))
        yield from families(own.SLOTS.declared, own.slot_rows(measured, self._cpu))
        self._cpu.forget_others(measured)
        yield from families(scoreboard.LAYOUT.families.declared, children.request_rows(measured))
        if snapshot.relayed:
            relayed = children.relay_rows(snapshot.relayed)
            yield from families(relay_board.LAYOUT.families.declared, relayed)
        if snapshot.carried is not None:
            yield from families(carry.CARRY.declared, carry.rows(snapshot.carried))
        if snapshot.consumption.hub is not None:
            layer = children.layer_rows(snapshot.consumption.hub)
            yield from families((*HUB.declared, *PATTERNS.declared), layer)
        if snapshot.consumption.pools:
            channels = children.channel_rows(snapshot.consumption.pools)
            yield from families(CHANNELS.declared, channels)
