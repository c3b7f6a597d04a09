"""What a channel worker tells the supervisor, in its bulletin: counts and times by channel."""

import msgspec

from chansup.protocol.histogram import Histogram


class ChannelCounts(msgspec.Struct):
    """Of one channel that the process consumes. Counters only ever grow."""

    handled: int = 0  # messages that the consumer was done with
    failed: int = 0  # for which it raised
    returned: int = 0  # that went back to the queue, unfinished, at the end of a process
    lost: int = 0  # that were unfinished at the end of a process, and could not go back
    redelivered: int = 0  # that came again after a failure or a crash
    dead: int = 0  # that were given up, and went to the log of dead letters
    listener_failures: int = 0  # times that receiving failed and was tried again
    wait: Histogram | None = None  # in the queue; None where the layer does not tell
    handling: Histogram = msgspec.field(default_factory=Histogram)
    in_flight: int = 0  # messages that it has in hand now
    depth: int | None = None  # messages in the queue when it last looked; None: cannot be known
    oldest: float | None = None  # age of the oldest of them, in seconds
    looked: float = 0.0  # when it last looked: CLOCK_MONOTONIC, in seconds


class ChannelReport(msgspec.Struct):
    """Of one process."""

    concurrency: int = 1
    channels: dict[str, ChannelCounts] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ChannelReport)


def encode(report: ChannelReport) -> bytes:
    """Return the document for a bulletin."""
    return _encoder.encode(report)


def decode(document: bytes) -> ChannelReport:
    """Return what a document says. Raises msgspec.DecodeError."""
    return _decoder.decode(document)
