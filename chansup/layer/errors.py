"""What a channel layer raises. Where Channels is installed, its own exceptions are these."""

from typing import TYPE_CHECKING

from chansup.errors import ChansupError
from chansup.layer.delivery import Receipt

if TYPE_CHECKING:

    class ChannelFull(Exception):
        """The channel holds as many messages as it may."""

    class MessageTooLarge(Exception):
        """The message is larger than 1 MB."""

else:
    try:
        from channels.exceptions import ChannelFull, MessageTooLarge
    except ImportError:

        class ChannelFull(Exception):
            """The channel holds as many messages as it may."""

        class MessageTooLarge(Exception):
            """The message is larger than 1 MB."""


class LayerError(ChansupError):
    """The channel layer cannot do what it was asked."""


class HubError(LayerError):
    """The hub refused: a limit of its configuration is reached."""


class HubUnavailable(HubError, ConnectionError):
    """The hub did not answer in time. The message was not sent."""


class HubLost(HubUnavailable):
    """The hub went away before it answered: whether the message was sent is not known."""


class NoHub(HubUnavailable):
    """There is nothing that says where a hub is."""


class LayerConfigError(LayerError, ValueError):
    """The channel layer's options are invalid."""


class ForeignChannel(LayerError, AssertionError):
    """Only the process that made a channel with "!" can receive from it.

    An AssertionError, too, since that is what channels_redis raises.
    """


class Unreadable(LayerError):
    """What was taken is not a message here: it has another key, or is of another serializer.

    `receipt` says what becomes of it: with `until_done` it is in hand until then.
    """

    def __init__(self, text: str, body: bytes, receipt: Receipt) -> None:
        super().__init__(text)
        self.body = body
        self.receipt = receipt
