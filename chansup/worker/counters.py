"""What a worker counts, and tells the supervisor in its bulletin."""

from time import perf_counter

from chansup.protocol import channel_report
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.channel_report import ChannelCounts, ChannelReport
from chansup.protocol.histogram import Histogram
from chansup.worker.sources import Delivery


class Counters:
    """The counts of one process. Without a bulletin nobody reads them."""

    def __init__(self, bulletin: Bulletin | None, channels: list[str]) -> None:
        self._bulletin = bulletin
        self._report = ChannelReport({channel: ChannelCounts() for channel in channels})
        self._written = b""

    def of(self, channel: str) -> ChannelCounts:
        """Return the counts of a channel."""
        return self._report.channels[channel]

    def began(self, channel: str, delivery: Delivery) -> None:
        """Count a message that was taken."""
        counts = self.of(channel)
        counts.in_flight += 1
        if delivery.attempt > 1:
            counts.redelivered += 1
        if delivery.waited is not None:
            counts.wait = counts.wait or Histogram()
            counts.wait.add(delivery.waited)

    def handled(self, channel: str, began: float) -> None:
        """Count a message that a consumer is done with."""
        self._ended(channel, began).handled += 1

    def failed(self, channel: str, began: float) -> None:
        """Count a message for which a consumer raised."""
        self._ended(channel, began).failed += 1

    def _ended(self, channel: str, began: float) -> ChannelCounts:
        counts = self.of(channel)
        counts.in_flight -= 1
        counts.handling.add(perf_counter() - began)
        return counts

    def unfinished(self, channel: str, *, returned: bool) -> None:
        """Count a message that was in hand when the process had to end."""
        counts = self.of(channel)
        counts.in_flight -= 1
        if returned:
            counts.returned += 1
        else:
            counts.lost += 1

    def returned_are_lost(self) -> int:
        """Count what was returned as lost, for the layer did not take it; return how many."""
        total = 0
        for counts in self._report.channels.values():
            total += counts.returned
            counts.lost += counts.returned
            counts.returned = 0
        return total

    def write(self) -> None:
        """Write the report, if there is anything new."""
        document = channel_report.encode(self._report)
        if self._bulletin is not None and document != self._written:
            self._written = document
            self._bulletin.write(document)
