"""What the hub tells the supervisor, in its bulletin."""

import msgspec

DEFAULT_PATTERN = "*"  # of channels that no pattern of channel_capacity fits


class Queue(msgspec.Struct):
    """What waits in the channels of one pattern, or in one channel."""

    channels: int = 0
    messages: int = 0
    oldest: float = 0.0  # age of the oldest message, in seconds


class HubReport(msgspec.Struct):
    """Counters are since the beginning of the hub, planned replacements included."""

    messages_sent: int = 0
    group_messages_sent: int = 0
    messages_delivered: int = 0
    messages_redelivered: int = 0
    dropped: dict[str, dict[str, int]] = {}  # reason → pattern → messages
    pending: dict[str, Queue] = {}  # by pattern of channel_capacity
    observed: dict[str, Queue] = {}  # by name, of the channels that channel workers consume
    connections: int = 0
    channels: int = 0
    groups: int = 0
    memberships: int = 0
    parked: int = 0  # channels that wait for the end of a handover
    memory: int = 0  # bytes
    memory_limit: int = 0
    speaks: tuple[int, int] | None = None  # oldest and newest version of the channel layer
    epoch: str = (
        ""  # the same as long as the counters continue: a planned replacement takes it over
    )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(HubReport)


def encode(report: HubReport) -> bytes:
    """Return the document for a bulletin."""
    return _encoder.encode(report)


def decode(document: bytes) -> HubReport:
    """Return what a document says. Raises msgspec.DecodeError."""
    return _decoder.decode(document)
