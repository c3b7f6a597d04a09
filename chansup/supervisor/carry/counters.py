"""What the holder counts, and how `/metrics` shows it."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from chansup.protocol.counters import Buckets, Families, Family, Label, Row
from chansup.protocol.histogram import Histogram

_PAUSES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_OTHER = "other"  # what a process says in words that are not known

CARRY = Families("the supervisor")
HELD = CARRY.gauge("chansup_carry_held", "WebSockets that the supervisor holds a duplicate of.")
WAITING = CARRY.gauge("chansup_carry_waiting", "Those of them that have no process now.")
LIMIT = CARRY.gauge("chansup_carry_limit", "How many the limit of descriptors allows.")
JOURNALS = CARRY.gauge("chansup_carry_journal_bytes", "Shared memory of their journals.")
ADOPTED = CARRY.counter(
    "chansup_carry_adopted_total",
    "WebSockets that another process has taken, by why theirs let go of them.",
    Label("reason", ("deploy", "crash")),
)
PAUSE = CARRY.histogram(
    "chansup_carry_pause_seconds", "How long they were without a process that reads.", _PAUSES
)
LOST = CARRY.counter(
    "chansup_carry_messages_lost_total", "Messages that a process had in hand when it died."
)
REDELIVERED = CARRY.counter(
    "chansup_carry_messages_redelivered_total", "Messages given to another process again."
)
NOT_CARRIED = CARRY.counter(
    "chansup_carry_not_carried_total",
    "WebSockets that end with their process, by what keeps them from moving.",
    Label("reason", ("inbound", "outbound", "descriptors", "channel", _OTHER)),
)
FAILED = CARRY.counter(
    "chansup_carry_failed_total",
    "Adoptions that came to nothing.",
    Label(
        "reason",
        ("leaving", "memory", "differs", "gone", "error", "denied", "subprotocol", "session",
         "closed", _OTHER),
    ),
)  # fmt: skip
ENDED = CARRY.counter(
    "chansup_carry_ended_total",
    "WebSockets that the supervisor let end.",
    Label("reason", ("no_process", "poison", "not_exact", "refused")),
)


class HolderCounters:
    """Counters since the supervisor started."""

    def __init__(self) -> None:
        self.pauses = Histogram()  # seconds
        self._counted: Counter[tuple[str, ...]] = Counter()

    def add(self, family: Family, label: str = "", number: int = 1) -> None:
        """Count `number` more of a family. An unknown label counts as other."""
        labels = [label if label in one.values else _OTHER for one in family.fixed]
        self._counted[family.name, *labels] += number

    def of(self, family: Family, label: str | None = None) -> int:
        """Return what was counted, of one label or of all."""
        return sum(
            number
            for (name, *labels), number in self._counted.items()
            if name == family.name and label in (None, *labels)
        )


class HolderReport(NamedTuple):
    """The holder at one moment."""

    held: int
    waiting: int
    limit: int
    journal_bytes: int
    counters: HolderCounters


def rows(report: HolderReport) -> Iterator[Row]:
    """Return the rows of `/metrics`."""
    yield Row(HELD, [], report.held)
    yield Row(WAITING, [], report.waiting)
    yield Row(LIMIT, [], report.limit)
    yield Row(JOURNALS, [], report.journal_bytes)
    counters = report.counters
    pauses = counters.pauses
    yield Row(PAUSE, [], Buckets([*pauses.below(PAUSE.bounds), pauses.count], pauses.total))
    for family in (ADOPTED, NOT_CARRIED, FAILED, ENDED):
        for label in family.fixed[0].values:
            yield Row(family, [label], counters.of(family, label))
    for family in (LOST, REDELIVERED):
        yield Row(family, [], counters.of(family))
