"""What the two sides of a connection say first, and the version of the relay that they agree on."""

import msgspec

import chansup
from chansup.protocol import versions
from chansup.relay.frames import OLDEST_PROTOCOL, PROTOCOL, FrameError
from chansup.text import visible


class Hello(msgspec.Struct, frozen=True):
    """What each side says of itself.

    A side of before versions were negotiated reads `protocol` alone, and expects its own there. So
    that is the oldest version that this side speaks.
    """

    protocol: int
    version: str  # of chansup
    name: str  # of the slot
    newest: int = 0  # version that it speaks; 0: `protocol` is the only one


class Greeting(msgspec.Struct, frozen=True):
    """What the other side is, and the version in which both speak from now on."""

    name: str
    protocol: int


class VersionError(FrameError):
    """The two sides have no version of the relay in common."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Hello)


def hello(name: str) -> Hello:
    """Return what a process of this code says; `name` is that of its slot."""
    return Hello(OLDEST_PROTOCOL, chansup.__version__, name, PROTOCOL)


def encode(said: Hello) -> bytes:
    """Return the payload of HELLO."""
    return _encoder.encode(said)


def answer_to(payload: bytes, ours: Hello) -> Greeting:
    """Return what both sides agree on: the newest version that both speak.

    Raises VersionError where there is none, FrameError for anything but a greeting.
    """
    try:
        theirs = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"no greeting: {error}") from None
    known = versions.RELAY._replace(newest=_newest(ours), oldest=ours.protocol)
    common = versions.common(known, theirs.protocol, _newest(theirs))
    if common is None:
        raise VersionError(
            f"it speaks {_versions(theirs)} of the relay (chansup {visible(theirs.version)[:50]}), "
            f"this side {_versions(ours)} (chansup {ours.version})"
        )
    return Greeting(visible(theirs.name)[:100], common)


def _newest(said: Hello) -> int:
    return max(said.newest, said.protocol)


def _versions(said: Hello) -> str:
    return versions.in_words(said.protocol, _newest(said))
