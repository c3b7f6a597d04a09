"""Where the channel layer of a site is, as the supervisor tells its children by the environment."""

from typing import Any

import msgspec

from chansup.protocol import encoding

VARIABLE = "CHANSUP_CHANNEL_LAYER"
SOCKET = "hub.sock"  # in the runtime directory


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON object in CHANSUP_CHANNEL_LAYER."""

    backend: str | list[Any] = "local"
    address: str | None = None  # of the hub's socket
    options: dict[str, Any] = {}


def encode(place: Place) -> str:
    """Return the value of the variable."""
    return encoding.encode(place).decode()


def decode(text: str) -> Place:
    """Return what the variable says. Raises msgspec.MsgspecError."""
    return encoding.decode(text, Place)
