"""The channel layer: one machine needs no server for it, and many use Redis or RabbitMQ.

What stands here is imported when it is first used: the hub's process needs no Channels.
"""

from typing import TYPE_CHECKING, Any

from chansup.log_lines import keep_on_one_line

if TYPE_CHECKING:
    from chansup.layer.choice import ChannelLayer
    from chansup.layer.delivery import Delivery
    from chansup.layer.errors import (
        ChannelFull,
        ForeignChannel,
        HubError,
        HubLost,
        HubUnavailable,
        MessageTooLarge,
        NoHub,
        Unreadable,
    )
    from chansup.layer.local import LocalChannelLayer

__all__ = [
    "ChannelFull",
    "ChannelLayer",
    "Delivery",
    "ForeignChannel",
    "HubError",
    "HubLost",
    "HubUnavailable",
    "LocalChannelLayer",
    "MessageTooLarge",
    "NoHub",
    "Unreadable",
]


for _logger in ("chansup.layer", "chansup.layer.hub"):
    keep_on_one_line(_logger)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "ChannelLayer":
        from chansup.layer import choice as module
    elif name == "Delivery":
        from chansup.layer import delivery as module  # type: ignore[no-redef]
    elif name == "LocalChannelLayer":
        from chansup.layer import local as module  # type: ignore[no-redef]
    else:
        from chansup.layer import errors as module  # type: ignore[no-redef]
    return getattr(module, name)
