"""What channel workers consume, by pool and channel, over all processes that ever were."""

import time
from collections.abc import Iterable
from typing import Protocol
from weakref import WeakKeyDictionary

from chansup.config import schema
from chansup.config.channels import DEFAULT_CONCURRENCY
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.channel_report import ChannelCounts, ChannelReport
from chansup.protocol.histogram import Histogram
from chansup.protocol.hub_report import HubReport
from chansup.protocol.status import ConsumerPool, Consumption
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.stats.bulletins import MAX_CHANNELS, may_consume, read_channels


class Reporting(Protocol):
    """A process that may write a bulletin."""

    @property
    def specification(self) -> PoolSpecification:
        """What it runs."""

    @property
    def bulletin(self) -> Bulletin | None:
        """The memory that it reports in."""


class Sized(Protocol):
    """A pool, with how many processes it wants and has."""

    @property
    def name(self) -> str:
        """The name in the config."""

    @property
    def specification(self) -> PoolSpecification:
        """What its processes run."""

    @property
    def ready(self) -> int:
        """How many of them are ready."""

    @property
    def desired(self) -> int:
        """How many it wants."""


def consumed_by(specification: PoolSpecification) -> schema.Workers | None:
    """Return the settings of a pool if its processes are channel workers of chansup's."""
    settings = specification.settings
    return settings if specification.consumes and isinstance(settings, schema.Workers) else None


class ConsumptionCounts:
    """Counters of processes that are gone, to which those that live are added."""

    def __init__(self) -> None:
        self._gone: dict[tuple[str, str], ChannelCounts] = {}
        self._heard: WeakKeyDictionary[Reporting, ChannelReport] = WeakKeyDictionary()

    def keep(self, process: Reporting) -> None:
        """Take over what a process counted that has ended; its gauges are of the past."""
        settings = consumed_by(process.specification)
        report = self._report(process)
        if settings is None or report is None:
            return
        for name, counts in report.channels.items():
            if not settings.redeliver:
                counts.lost += counts.in_flight  # that it was killed with
            counts.in_flight, counts.depth, counts.oldest = 0, None, None
            key = process.specification.name, name
            if key in self._gone or self._has_room(process.specification.name):
                _add(self._gone.setdefault(key, ChannelCounts()), counts)

    def _has_room(self, pool: str) -> bool:
        return sum(name == pool for name, _ in self._gone) < MAX_CHANNELS

    def _report(self, process: Reporting) -> ChannelReport | None:
        """Return what it said last that can be believed, as a document of our own."""
        settings = consumed_by(process.specification)
        if settings is None or process.bulletin is None:
            return None
        report = read_channels(process.bulletin, settings)
        if report is None:
            return self._heard.get(process)
        self._heard[process] = report
        return report

    def look(
        self, pools: Iterable[Sized], living: Iterable[Reporting], hub: HubReport | None
    ) -> Consumption:
        """Return how it is now. `hub` is of the hub that lives, if one does."""
        found: dict[str, ConsumerPool] = {}
        settings: dict[str, schema.Workers] = {}
        for pool in pools:
            known = consumed_by(pool.specification)
            if known is not None:
                settings[pool.name] = known
                found[pool.name] = ConsumerPool(
                    pool.name,
                    known.layer,
                    known.concurrency or DEFAULT_CONCURRENCY,
                    pool.ready,
                    pool.desired,
                )
        for name, one in found.items():
            for channel in settings[name].channels[:MAX_CHANNELS]:
                one.channels[channel] = ChannelCounts()
            for (pool_name, channel), counts in self._gone.items():
                if pool_name == name and may_consume(settings[name], channel):
                    _add(one.channels.setdefault(channel, ChannelCounts()), counts)
        for process in living:
            name = process.specification.name
            report = self._report(process) if name in found else None
            for channel, counts in report.channels.items() if report else ():
                one = found[name]
                room = channel in one.channels or len(one.channels) < MAX_CHANNELS
                if room and may_consume(settings[name], channel):
                    _add(one.channels.setdefault(channel, ChannelCounts()), counts)
        for one in found.values():
            if hub is not None and one.layer == "default":
                _observe(one, hub)
            one.channels = dict(sorted(one.channels.items()))
        return Consumption(time.monotonic(), list(found.values()), hub)


def _add(sums: ChannelCounts, counts: ChannelCounts) -> None:
    sums.handled += counts.handled
    sums.failed += counts.failed
    sums.returned += counts.returned
    sums.lost += counts.lost
    sums.redelivered += counts.redelivered
    sums.dead += counts.dead
    sums.listener_failures += counts.listener_failures
    if counts.wait is not None:
        if sums.wait is None:
            sums.wait = Histogram()
        sums.wait.merge(counts.wait)
    sums.handling.merge(counts.handling)
    sums.in_flight += counts.in_flight
    if counts.depth is not None and (sums.depth is None or counts.looked > sums.looked):
        sums.depth, sums.oldest, sums.looked = counts.depth, counts.oldest, counts.looked


def _observe(pool: ConsumerPool, hub: HubReport) -> None:
    """Take how deep the queues are from the hub: it looks when no worker lives, too."""
    for name, counts in pool.channels.items():
        queue = hub.observed.get(name)
        if queue is not None:
            counts.depth, counts.oldest = queue.messages, queue.oldest if queue.messages else 0.0
            counts.wait = counts.wait or Histogram()  # this layer tells: rows are there at zero
