"""Which channels a worker consumes, and what the project's routing says of them.

Channels 1's meaning of the globs: if there are `only` globs, one must fit; none of the `exclude`
globs may. They choose among the names of the project's ChannelNameRouter.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from chansup.config.keys import listed, quoted

Field = Literal["channels", "only_channels", "exclude_channels"]
_LEADS_ON = ("inner", "app", "application")  # where middleware keeps what it wraps
_MOST_STEPS = 100


class Routing(msgspec.Struct, frozen=True):
    """What can be seen of an app's routing from outside."""

    names: list[str] | None = None  # of its ChannelNameRouter; None: there is none
    lacks_channel: bool = False  # it has a ProtocolTypeRouter, without "channel"


class Choice(msgspec.Struct, frozen=True):
    """What the config says."""

    channels: list[str] = []
    only: list[str] = []
    exclude: list[str] = []


def routing(application: Any) -> Routing:
    """Find an app's ChannelNameRouter, behind routers and middleware."""
    try:
        from channels.routing import ChannelNameRouter, ProtocolTypeRouter
    except ImportError:
        return Routing()
    for _ in range(_MOST_STEPS):
        if isinstance(application, ChannelNameRouter):
            return Routing([str(name) for name in application.application_mapping])
        if isinstance(application, ProtocolTypeRouter):
            if "channel" not in application.application_mapping:
                return Routing(lacks_channel=True)
            application = application.application_mapping["channel"]
            continue
        inner = (getattr(application, name, None) for name in _LEADS_ON)
        application = next((one for one in inner if callable(one)), None)
        if application is None:
            break
    return Routing()


def choose(names: Sequence[str], only: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Return the names that the globs leave."""
    if only:
        names = [name for name in names if any(fnmatchcase(name, glob) for glob in only)]
    return [name for name in names if not any(fnmatchcase(name, glob) for glob in exclude)]


def consumed(found: Routing, choice: Choice) -> list[str]:
    """Return the names of the channels that a worker consumes."""
    return choice.channels or choose(found.names or [], choice.only, choice.exclude)


def problems(found: Routing, choice: Choice) -> Iterator[tuple[Field, str]]:
    """Yield what is wrong between the config and the app, with the key of the config."""
    first: Field = "channels" if choice.channels else "only_channels"
    if first == "only_channels" and not choice.only:
        first = "exclude_channels"
    if found.lacks_channel:
        message = (
            'the app\'s ProtocolTypeRouter has no "channel": add '
            f"{_router(choice.channels or ['thumbnails'])}"
        )
        yield first, message
    elif choice.channels:
        if found.names is not None:
            for name in choice.channels:
                if name not in found.names:
                    yield first, _unknown(name, found.names)
    elif found.names is None:
        message = (
            "globs choose among the names of a ChannelNameRouter, and the app has none: "
            'name the channels, channels = ["thumbnails"], or add '
            f"{_router(['thumbnails'])}"
        )
        yield first, message
    else:
        yield from _globs(found.names, choice, first)


def _globs(names: list[str], choice: Choice, first: Field) -> Iterator[tuple[Field, str]]:
    idle: Mapping[Field, list[str]] = {
        "only_channels": choice.only,
        "exclude_channels": choice.exclude,
    }
    has = f"the ChannelNameRouter has {_listed(names)}"
    for field, globs in idle.items():
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                yield field, f"{quoted(glob)} fits no channel: {has}"
    if not choose(names, choice.only, choice.exclude):
        yield first, f"the globs leave no channel: {has}"


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1, 0.6)
    if near:
        return f"the ChannelNameRouter has no {quoted(name)}: did you mean {quoted(near[0])}?"
    return (
        f"the ChannelNameRouter has no {quoted(name)}, it has {_listed(names)}: "
        "add it there, or remove it here"
    )


def _listed(names: list[str]) -> str:
    return listed(sorted(names), "and") if names else "none"


def _router(names: list[str]) -> str:
    entries = ", ".join(f'"{name}": YourConsumer.as_asgi()' for name in names)
    return f'"channel": ChannelNameRouter({{{entries}}}) to it'
