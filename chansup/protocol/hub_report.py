"""What the hub tells the supervisor, in its bulletin."""

from enum import StrEnum
from typing import Annotated

import msgspec

from chansup.protocol.counters import Count, Families, Label, Seconds

DEFAULT_PATTERN = "*"  # of channels that no pattern of channel_capacity fits


class Drop(StrEnum):
    """Why a message reached nobody."""

    FULL = "full"  # the channel had as many as it may
    EXPIRED = "expired"  # nobody took it in time
    MEMORY = "memory"  # the hub had as much as it may
    GONE = "gone"  # the process that it was for has ended
    MOVED = "moved"  # for a group that the connection's new process did not join
    LEFT = "left"  # the consumer that it was for had ended: its client went away
    FLUSHED = "flushed"  # somebody asked for it
    LOST = "lost"  # it waited in a hub that was killed, or was on the way out of it
    LATE = "late"  # for a member of a group whose process took too long to find the new hub


HUB = Families("the hub")
SENT = HUB.counter("chansup_layer_messages_sent_total", "Messages sent to a channel.")
GROUP_SENT = HUB.counter("chansup_layer_group_messages_sent_total", "Messages sent to a group.")
DELIVERED = HUB.counter(
    "chansup_layer_messages_delivered_total",
    "Messages given to a process: one for each member of a group.",
)
REDELIVERED = HUB.counter(
    "chansup_layer_messages_redelivered_total",
    "Messages given to a process after another one had them in hand.",
)
CONNECTIONS = HUB.gauge("chansup_layer_connections", "Connections of processes.")
CHANNELS = HUB.gauge(
    "chansup_layer_channels", "Channels that hold something, are in a group or have a reader."
)
GROUPS = HUB.gauge("chansup_layer_groups", "Groups that have members.")
MEMBERSHIPS = HUB.gauge("chansup_layer_memberships", "Memberships of all channels in all groups.")
PARKED = HUB.gauge("chansup_layer_parked_channels", "Channels that wait for the end of a handover.")
MEMORY = HUB.gauge("chansup_layer_memory_bytes", "What messages, channels and groups take up.")
MEMORY_LIMIT = HUB.gauge(
    "chansup_layer_memory_limit_bytes", "What they may take up: [channel_layer] memory."
)

PATTERNS = Families("the hub", ("pattern",))  # of channel_capacity: no name of a channel or group
DROPPED = PATTERNS.counter(
    "chansup_layer_messages_dropped_total",
    "Messages that reached nobody, by the pattern of the channel and by reason.",
    Label("reason", tuple(Drop)),
)
WAITING = PATTERNS.gauge("chansup_layer_queue_messages", "Messages that wait in the hub.")
OLDEST = PATTERNS.gauge("chansup_layer_queue_oldest_seconds", "Age of the oldest of them.")


class Queue(msgspec.Struct):
    """What waits in the channels of one pattern, or in one channel."""

    channels: Count = 0
    messages: Annotated[Count, WAITING] = 0
    oldest: Annotated[Seconds, OLDEST] = 0.0


class HubReport(msgspec.Struct):
    """Counters are since the beginning of the hub, planned replacements included."""

    messages_sent: Annotated[Count, SENT] = 0
    group_messages_sent: Annotated[Count, GROUP_SENT] = 0
    messages_delivered: Annotated[Count, DELIVERED] = 0
    messages_redelivered: Annotated[Count, REDELIVERED] = 0
    dropped: dict[str, dict[str, Count]] = {}  # DROPPED: reason → pattern → messages
    pending: dict[str, Queue] = {}  # by pattern of channel_capacity
    observed: dict[str, Queue] = {}  # by name, of the channels that channel workers consume
    connections: Annotated[Count, CONNECTIONS] = 0
    channels: Annotated[Count, CHANNELS] = 0
    groups: Annotated[Count, GROUPS] = 0
    memberships: Annotated[Count, MEMBERSHIPS] = 0
    parked: Annotated[Count, PARKED] = 0
    memory: Annotated[Count, MEMORY] = 0
    memory_limit: Annotated[Count, MEMORY_LIMIT] = 0
    speaks: tuple[int, int] | None = None  # oldest and newest version of the channel layer
    # The same as long as the counters continue: a planned replacement takes it over.
    epoch: Annotated[str, msgspec.Meta(max_length=100)] = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(HubReport)


def encode(report: HubReport) -> bytes:
    """Return the document for a bulletin."""
    return _encoder.encode(report)


def decode(document: bytes) -> HubReport:
    """Return what a document says. Raises msgspec.DecodeError, for impossible numbers, too."""
    return _decoder.decode(document)
