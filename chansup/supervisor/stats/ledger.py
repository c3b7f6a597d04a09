"""What all processes counted that ever were: sums of those that are gone, and of those that live.

Counters only grow, whatever dies. Gauges are those of the living alone.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import msgspec

from chansup.config import schema
from chansup.config.channels import DEFAULT_CONCURRENCY
from chansup.protocol import documents, relay_board, scoreboard
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.channel_report import ChannelCounts, ChannelReport
from chansup.protocol.counters import Layout
from chansup.protocol.histogram import Histogram
from chansup.protocol.hub_report import HubReport
from chansup.protocol.relay_board import RelayBoard
from chansup.protocol.roster import MAX_POOLS
from chansup.protocol.scoreboard import Scoreboard
from chansup.protocol.status import ConsumerPool, Consumption
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.stats.bulletins import (
    MAX_CHANNELS,
    MAX_PATTERNS,
    OTHERS,
    may_consume,
    read_channels,
    read_hub,
)

_MAX_EPOCHS = 8  # of hubs that can be told apart at a time; older ones are summed up


class Scored(Protocol):
    """A process that may have a scoreboard."""

    scoreboard: Scoreboard | None


class Counting(Protocol):
    """A process that may count."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def specification(self) -> PoolSpecification:
        """What it runs."""

    @property
    def relay_board(self) -> RelayBoard | None:
        """The memory in which its relay counts."""

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


class Totals:
    """Cells of one layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._gone = [0.0] * layout.cells

    def keep(self, cells: Sequence[float]) -> None:
        """Take over what a process counted that has ended."""
        self._layout.keep(self._gone, cells)

    def of(self, living: Iterable[Sequence[float]]) -> list[float]:
        """Return the sums over all processes that ever were; `living` has the cells of each."""
        sums = list(self._gone)
        for cells in living:
            self._layout.add(sums, cells)
        return sums


class SlotTotals:
    """What the processes of one slot counted on their scoreboards."""

    def __init__(self) -> None:
        self._totals = Totals(scoreboard.LAYOUT)

    def keep(self, process: Scored) -> None:
        """Take over what a process counted that has ended, and close its scoreboard."""
        board, process.scoreboard = process.scoreboard, None
        if board is not None:
            cells, silent = list(board.cells), scoreboard.close_cell(1006)
            # Those that a killed process still had were closed silently.
            cells[silent] = board.read(silent) + board.read(scoreboard.WEBSOCKETS_OPEN)
            self._totals.keep(cells)
            board.close()

    def cells(self, living: Iterable[Scored], current: Scored | None) -> list[float]:
        """Return the scoreboard of the slot. Its lag is that of the current process."""
        boards = [one.scoreboard for one in living if one.scoreboard is not None]
        cells = self._totals.of(board.cells for board in boards)
        board = current.scoreboard if current is not None else None
        cells[scoreboard.LOOP_LAG] = board.read(scoreboard.LOOP_LAG) if board else 0.0
        return cells


class Ledger:
    """What relays, channel workers and hubs counted."""

    def __init__(self) -> None:
        self._relayed = [Totals(relay_board.LAYOUT) for _ in range(MAX_POOLS)]
        self._consumed: dict[tuple[str, str], ChannelCounts] = {}  # of the gone; pool and channel
        self._epochs: dict[str, HubReport] = {}  # counters of hubs alone; the oldest first
        self._before = HubReport()  # sums of epochs that are long over
        self._channels: WeakKeyDictionary[Counting, ChannelReport] = WeakKeyDictionary()
        self._hubs: WeakKeyDictionary[Counting, HubReport] = WeakKeyDictionary()

    def keep(self, process: Counting) -> None:
        """Take over what a process counted that has ended."""
        if process.relay_board is not None:
            for number, totals in enumerate(self._relayed):
                totals.keep(process.relay_board.row(number))
        if process.specification.kind == "hub":
            self._hub_report(process)
        self._keep_channels(process)

    # Relays

    def relayed(
        self, rows: Mapping[str, int], living: Iterable[Counting]
    ) -> dict[str, list[float]]:
        """Return the cells of each pool; `rows` has their rows on relay boards."""
        boards = [one.relay_board for one in living if one.relay_board is not None]
        return {
            name: self._relayed[number].of(board.row(number) for board in boards)
            for name, number in rows.items()
        }

    # Channel workers

    def consumption(self, pools: Iterable[Sized], living: Sequence[Counting]) -> Consumption:
        """Return what the hub and the channel workers of `pools` did and do."""
        hub = self.hub(living)
        found = []
        for pool in pools:
            settings = consumed_by(pool.specification)
            if settings is not None:
                channels = self._channels_of(pool.name, settings, living)
                if hub is not None and settings.layer == "default":
                    _observe(channels, hub)
                one = ConsumerPool(
                    pool.name,
                    settings.layer,
                    settings.concurrency or DEFAULT_CONCURRENCY,
                    pool.ready,
                    pool.desired,
                    dict(sorted(channels.items())),
                )
                found.append(one)
        return Consumption(time.monotonic(), found, hub)

    def _channels_of(
        self, pool: str, settings: schema.Workers, living: Iterable[Counting]
    ) -> dict[str, ChannelCounts]:
        sums = {channel: ChannelCounts() for channel in settings.channels[:MAX_CHANNELS]}
        counted = [(name, counts) for (of, name), counts in self._consumed.items() if of == pool]
        for process in living:
            if process.specification.name == pool and (report := self._channel_report(process)):
                counted += report.channels.items()
        for channel, counts in counted:
            room = channel in sums or len(sums) < MAX_CHANNELS
            if room and may_consume(settings, channel):
                _add(sums.setdefault(channel, ChannelCounts()), counts)
        return sums

    def _keep_channels(self, process: Counting) -> None:
        settings, report = consumed_by(process.specification), self._channel_report(process)
        if settings is None or report is None:
            return
        pool = process.specification.name
        for channel, counts in report.channels.items():
            if not settings.redeliver:
                counts.lost += counts.in_flight  # that it was killed with
            counts.in_flight, counts.depth, counts.oldest = 0, None, None
            room = sum(name == pool for name, _ in self._consumed) < MAX_CHANNELS
            if room or (pool, channel) in self._consumed:
                _add(self._consumed.setdefault((pool, channel), ChannelCounts()), counts)

    def _channel_report(self, process: Counting) -> ChannelReport | None:
        """Return what it said last that can be believed, as a document of our own."""
        settings = consumed_by(process.specification)
        if settings is not None and process.bulletin is not None:
            report = read_channels(process.bulletin, settings)
            if report is not None:
                self._channels[process] = report
        return self._channels.get(process)

    # The hub

    def hub(self, living: Iterable[Counting]) -> HubReport | None:
        """Return how it is now; None before the first one. Without one, gauges are 0."""
        present = None
        for process in living:
            if process.specification.kind == "hub":
                present = self._hub_report(process) or present
        if present is None and not self._epochs:
            return None
        sums = HubReport()
        if present is not None:
            zero = dict.fromkeys(documents.counters(HubReport), 0)
            sums = msgspec.structs.replace(present, dropped={}, **zero)
        for report in (self._before, *self._epochs.values()):
            _fold_hub(sums, report, int.__add__)
        return sums

    def _hub_report(self, process: Counting) -> HubReport | None:
        report = read_hub(process.bulletin) if process.bulletin is not None else None
        if report is None:
            return self._hubs.get(process)
        self._hubs[process] = report
        # After a crash counters begin at 0, with a new epoch. A planned replacement takes over its
        # predecessor's, with the epoch: while both tell, the one that is further is right.
        epoch = report.epoch or f"process {process.pid}"
        _fold_hub(self._epochs.setdefault(epoch, HubReport()), report, max, math.inf)
        while len(self._epochs) > _MAX_EPOCHS:
            first = self._epochs.pop(next(iter(self._epochs)))
            _fold_hub(self._before, first, int.__add__)
        return report


def consumed_by(specification: PoolSpecification) -> schema.Workers | None:
    """Return the settings of a pool if its processes are channel workers of chansup's."""
    settings = specification.settings
    return settings if specification.consumes and isinstance(settings, schema.Workers) else None


def _add(sums: ChannelCounts, counts: ChannelCounts) -> None:
    documents.fold(sums, counts)
    sums.in_flight += counts.in_flight
    if counts.depth is not None and (sums.depth is None or counts.looked > sums.looked):
        sums.depth, sums.oldest, sums.looked = counts.depth, counts.oldest, counts.looked


def _observe(channels: Mapping[str, ChannelCounts], hub: HubReport) -> None:
    """Take how deep the queues are from the hub: it looks when no worker lives, too."""
    for name, counts in channels.items():
        queue = hub.observed.get(name)
        if queue is not None:
            counts.depth, counts.oldest = queue.messages, queue.oldest if queue.messages else 0.0
            counts.wait = counts.wait or Histogram()  # this layer tells: rows are there at zero


def _fold_hub(
    into: HubReport, report: HubReport, how: Callable[[int, int], int], limit: float = MAX_PATTERNS
) -> None:
    documents.fold(into, report, how)
    for reason, patterns in report.dropped.items():
        counts = into.dropped.setdefault(reason, {})
        for pattern, number in patterns.items():
            place = pattern if pattern in counts or len(counts) < limit else OTHERS
            counts[place] = how(counts.get(place, 0), number)
