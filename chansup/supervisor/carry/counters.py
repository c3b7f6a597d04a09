"""What the holder counts."""

from collections import Counter
from collections.abc import Iterable

from chansup.protocol.histogram import Histogram

NOT_CARRIED = ("inbound", "outbound", "descriptors", "channel", "other")
ENDED = ("no_process", "poison", "not_exact", "refused", "other")
FAILED = (
    "leaving", "memory", "differs", "gone", "error", "denied", "subprotocol", "session", "closed",
    "other",
)  # fmt: skip


class HolderCounters:
    """Counters since the supervisor started. Their labels come from the lists above."""

    def __init__(self) -> None:
        self.adopted: Counter[str] = Counter()  # by reason of the handover
        self.pauses = Histogram()  # seconds, from let go of to read again
        self.lost = 0  # messages that a dead process had in hand
        self.redelivered = 0
        self.not_carried: Counter[str] = Counter()  # WebSockets that end with their process
        self.failed: Counter[str] = Counter()  # adoptions that came to nothing
        self.ended: Counter[str] = Counter()  # WebSockets that the holder let end

    def add(self, counter: "Counter[str]", label: str, known: Iterable[str]) -> None:
        """Count one more of `label`; an unknown label counts as other."""
        counter[label if label in known else "other"] += 1
