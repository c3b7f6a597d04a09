"""How a client and the hub introduce themselves."""

import msgspec

from chansup.layer.frames import PROTOCOL
from chansup.layer.policies import Policy


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame of a client."""

    protocol: int = PROTOCOL
    process: str  # what its channels are called up to the "!", without prefix
    policy: Policy


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    protocol: int = PROTOCOL
    version: str  # of chansup
    epoch: str  # of what the hub holds: it outlives a takeover, not a crash
    knows_policy: bool = False  # it understands Kind.POLICY
