"""What a channel worker tells the supervisor, in its bulletin: counts and times by channel."""

from typing import Annotated

import msgspec

from chansup.protocol.counters import Count, Families, Label, Seconds
from chansup.protocol.histogram import Histogram

_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1800.0,
)  # seconds  # fmt: skip

CHANNELS = Families("a channel worker", ("pool", "channel"))
DEPTH = CHANNELS.gauge("chansup_channel_depth", "Messages that wait.")
OLDEST = CHANNELS.gauge("chansup_channel_oldest_seconds", "Age of the oldest of them.")
IN_FLIGHT = CHANNELS.gauge("chansup_channel_in_flight", "Messages that workers have in hand.")
MESSAGES = CHANNELS.counter(
    "chansup_channel_messages_total",
    "Messages, by what became of them.",
    Label("result", ("handled", "failed", "returned", "lost", "dead")),
)
REDELIVERED = CHANNELS.counter(
    "chansup_channel_redelivered_total", "Messages that came again, after a failure or a crash."
)
LISTENER_FAILURES = CHANNELS.counter(
    "chansup_channel_listener_failures_total", "Times that receiving failed and was tried again."
)
WAIT = CHANNELS.histogram(
    "chansup_channel_wait_seconds", "How long messages waited in the queue.", _BOUNDS
)
HANDLING = CHANNELS.histogram(
    "chansup_channel_handling_seconds", "How long consumers took for them.", _BOUNDS
)


class ChannelCounts(msgspec.Struct):
    """Of one channel that the process consumes. Counters only ever grow."""

    handled: Annotated[Count, MESSAGES.of("handled")] = 0
    failed: Annotated[Count, MESSAGES.of("failed")] = 0  # the consumer raised
    returned: Annotated[Count, MESSAGES.of("returned")] = 0  # unfinished at the end of a process
    lost: Annotated[Count, MESSAGES.of("lost")] = 0  # that, and they could not go back
    redelivered: Annotated[Count, REDELIVERED] = 0
    dead: Annotated[Count, MESSAGES.of("dead")] = 0  # given up, to the log of dead letters
    listener_failures: Annotated[Count, LISTENER_FAILURES] = 0
    wait: Annotated[Histogram | None, WAIT] = None  # None where the layer does not tell
    handling: Annotated[Histogram, HANDLING] = msgspec.field(default_factory=Histogram)
    in_flight: Annotated[Count, IN_FLIGHT] = 0
    depth: Annotated[Count | None, DEPTH] = None  # when it last looked; None: cannot be known
    oldest: Annotated[Seconds | None, OLDEST] = None
    looked: Seconds = 0.0  # when it last looked: CLOCK_MONOTONIC


class ChannelReport(msgspec.Struct):
    """Of one process."""

    channels: dict[str, ChannelCounts] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ChannelReport)


def encode(report: ChannelReport) -> bytes:
    """Return the document for a bulletin."""
    return _encoder.encode(report)


def decode(document: bytes) -> ChannelReport:
    """Return what a document says. Raises msgspec.DecodeError, for impossible numbers, too."""
    return _decoder.decode(document)
