"""How a client and the hub introduce themselves."""

import msgspec

from chansup.layer.policies import Policy
from chansup.protocol import versions
from chansup.protocol.versions import LAYER


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame of a client."""

    protocol: int = LAYER.oldest  # that this side speaks
    newest: int = 0  # 0: `protocol` is the only one
    process: str  # what its channels are called up to the "!", without prefix
    policy: Policy
    link: int = 0  # number of this connection among all that the process ever had
    former: int = 0  # of the one that was lost, and that has requests without an answer
    received: int = 0  # messages that came by that one


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    protocol: int = LAYER.oldest  # that this side speaks
    newest: int = 0
    version: str  # of chansup
    epoch: str  # of what the hub holds: it outlives a takeover, not a crash
    knows_policy: bool = False  # it understands Kind.POLICY
    awaits: bool = False  # the process's memberships, as REJOIN, and REJOINED after them
    done: int | None = None  # how many requests of the former connection were carried out, if known
    refused: int = 0  # which of the last 64 of them were refused: the lowest bit is the last one's


def understands(said: Hello | Welcome) -> bool:
    """Whether this side and the other one have a version of the channel layer in common."""
    return versions.common(LAYER, *spoken_by(said)) is not None


def spoken_by(said: Hello | Welcome) -> tuple[int, int]:
    """Return the oldest and the newest version that the other side speaks."""
    return said.protocol, said.newest or said.protocol


def in_words(said: Hello | Welcome) -> str:
    """Return what the other side speaks, for people."""
    return f"{versions.in_words(*spoken_by(said))} of the channel layer"
