"""The counters of a run."""

from collections import Counter

from chansup.bench.latencies import Latencies


class Counters:
    """The counts of a run."""

    def __init__(self) -> None:
        self.latencies = Latencies()  # of every answer, whatever its status
        self.connects = Latencies()
        self.failed: Counter[str] = Counter()  # requests, messages and connections, by kind
        self.statuses: Counter[int] = Counter()
        self.closes: Counter[int] = Counter()  # of WebSockets, by code
        self.closed_idle = 0  # connections that the server closed while nothing was asked
        self.unasked = 0  # messages that answer nothing
        self.received = 0  # bytes
        self.open = 0  # connections, now
        self.most_open = 0
        self.last_answer = 0.0
        self.finished = 0  # requests or messages that were answered or have failed

    def opened(self, seconds: float) -> None:
        """Count a connection that was opened."""
        self.connects.add(seconds)
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    @property
    def answers(self) -> int:
        """How many requests or messages were answered."""
        return self.latencies.count

    @property
    def failures(self) -> int:
        """How much has failed."""
        return sum(self.failed.values())
