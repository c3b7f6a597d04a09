"""What happened to the WebSockets of one contender."""

import collections
from dataclasses import dataclass, field

from benchmarks import report
from benchmarks.relay.sockets import EchoSockets, quantiles

SOCKETS_NOTE = (
    "pause: the longest that a socket that had sent something waited for an echo, less what it "
    "waits anyway (the median before). One that was closed waits until its first echo on the next "
    "connection, which it opens within 0.1 s. A socket sees a pause only if it sends meanwhile, so "
    "p50 is of those that noticed and those that did not; p99 falls short by about a hundredth of "
    "a socket's period. client late: the longest that the client itself was kept from the "
    "processor, which is part of a pause. lost: sent, and no echo before a later message's, the "
    "close, or 10 s."
)


@dataclass
class Outcome:
    """What one contender did at one number of sockets, over all rounds. Times are seconds."""

    contender: str
    server: str
    is_relay: bool
    sockets: int
    rounds: int = 0
    closed: int = 0
    codes: collections.Counter[int] = field(default_factory=collections.Counter)
    lost: int = 0
    lost_of_one: int = 0  # the most that one socket lost in one round
    repeated: int = 0
    disordered: int = 0  # and messages of another socket
    reconnected: int = 0
    refused: int = 0
    absent: int = 0  # not open at the end
    stalled: int = 0
    ordinary: list[float] = field(default_factory=list)  # the longest wait of each socket before
    waits: list[float] = field(default_factory=list)  # and since it happened
    lag: float = 0.0  # of the client itself
    seconds: list[float] = field(default_factory=list)  # until it was over
    problems: list[str] = field(default_factory=list)

    def count(self, sockets: EchoSockets) -> None:
        """Add what happened to the sockets of one round."""
        result = sockets.result
        self.rounds += 1
        self.closed += result.closed
        self.codes.update(result.closes)
        self.lost += result.lost.total()
        self.lost_of_one = max(self.lost_of_one, max(result.lost.values(), default=0))
        self.repeated += result.repeated
        self.disordered += result.disordered + result.foreign
        self.reconnected += result.reconnected
        self.refused += result.refused
        self.absent += result.absent
        self.stalled += result.stalled
        self.lag = max(self.lag, result.lag)
        report.progress(f"  {result.summary()}")

    @property
    def usual(self) -> float:
        """What a socket waits anyway (median)."""
        return quantiles(self.ordinary)[0]

    @property
    def pauses(self) -> tuple[float, float, float]:
        """p50, p99 and the longest of what the sockets waited beyond the usual."""
        p50, p99, longest = quantiles(self.waits)
        usual = self.usual
        return max(0.0, p50 - usual), max(0.0, p99 - usual), max(0.0, longest - usual)

    @property
    def is_complete(self) -> bool:
        """Say whether there is something to judge."""
        return self.rounds > 0 and not self.problems

    def row(self) -> report.Row:
        """Return what a table says about the sockets."""
        p50, p99, longest = self.pauses
        codes = ", ".join(f"{code}: {number}" for code, number in self.codes.most_common())
        return {
            "contender": self.contender,
            "sockets": self.sockets,
            "closed": self.closed,
            "codes": codes or None,
            "lost": self.lost,
            "repeated": self.repeated,
            "out of order": self.disordered,
            "reconnected": self.reconnected,
            "refused": self.refused,
            "before, p99, ms": quantiles(self.ordinary)[1] * 1000,
            "pause p50, ms": p50 * 1000,
            "p99, ms": p99 * 1000,
            "longest, ms": longest * 1000,
            "client late, ms": self.lag * 1000,
        }
