"""Sending through the channel layer, and what to do when it is away."""

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from chansup.layer import HubError

from .models import Message

try:
    from redis.exceptions import RedisError
except ImportError:  # only the site of chansup.redis.toml needs it
    RedisError = HubError

# What the channel layer raises while it cannot be reached: chansup's, and channels_redis.
LAYER_ERRORS = (HubError, RedisError)

# To browsers: https://www.iana.org/assignments/websocket/ calls 1013 "Try Again Later".
TRY_AGAIN_LATER = 1013
LAYER_IS_AWAY = "Live messages are away for the moment: the channel layer cannot be reached."


def show(message: Message) -> None:
    """Show a message, new or changed, to everyone in its room."""
    event = {"type": "room.message", "message": message.as_json()}
    async_to_sync(get_channel_layer().group_send)(message.room.group, event)


async def make_thumbnail(picture: int) -> bool:
    """Have a worker make a thumbnail. False if there is too much to do already."""
    try:
        await get_channel_layer().send("thumbnails", {"type": "thumbnail.make", "picture": picture})
    except ChannelFull:
        return False
    return True
