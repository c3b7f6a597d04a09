"""`CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}`: what the site says."""

import importlib
from typing import Any
from urllib.parse import unquote, urlsplit

from chansup.layer import discovery
from chansup.layer.discovery import Place
from chansup.layer.errors import LayerConfigError

_REDIS = ("redis://", "rediss://", "unix://")
_SENTINEL = "redis+sentinel://"
_RABBITMQ = ("amqp://", "amqps://")
_SENTINEL_PORT = 26379


class ChannelLayer:
    """Makes the channel layer of this site: chansup's own, channels_redis' or channels_rabbitmq's.

    Arguments win over what the config says.
    """

    def __new__(cls, **config: Any) -> Any:
        """Return the layer. Raises LayerConfigError, NoHub."""
        if "backend" in config or "address" in config:
            place = Place(config.pop("backend", "local"), config.pop("address", None), {})
            if place.backend == "local" and place.address is None:
                place.address = discovery.find_hub()
        else:
            place = discovery.find()
        return make(place, config)


def make(place: Place, config: dict[str, Any]) -> Any:
    """Return the layer at a place. Raises LayerConfigError."""
    options = {**place.options, **config}
    if place.backend == "local":
        from chansup.layer.local import LocalChannelLayer

        return _made(LocalChannelLayer, {"address": place.address, **options})
    hosts = place.backend if isinstance(place.backend, list) else [place.backend]
    if len(hosts) == 1 and isinstance(hosts[0], str) and hosts[0].startswith(_RABBITMQ):
        layer = _imported("channels_rabbitmq.core", "RabbitmqChannelLayer", "rabbitmq")
        return _made(layer, {"host": hosts[0], **options})
    if not hosts:
        raise LayerConfigError("backend: the list of hosts is empty")
    pubsub = options.pop("pubsub", False)
    if not isinstance(pubsub, bool):
        raise LayerConfigError(f"pubsub: {pubsub!r}, expected true or false")
    decoded = [_host(host) for host in hosts]
    if pubsub:
        layer = _imported("channels_redis.pubsub", "RedisPubSubChannelLayer", "redis")
    else:
        layer = _imported("channels_redis.core", "RedisChannelLayer", "redis")
    return _made(layer, {"hosts": decoded, **options})


def _made(layer: Any, options: dict[str, Any]) -> Any:
    try:
        return layer(**options)
    except TypeError as error:
        raise LayerConfigError(f"the channel layer does not take this: {error}") from None


def _imported(module: str, name: str, extra: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = module.partition(".")[0]
        raise LayerConfigError(
            f"the channel layer needs {package}, which cannot be imported ({error}): "
            f"pip install 'chansup[{extra}]'"
        ) from None


def _host(host: Any) -> Any:
    if isinstance(host, dict):
        return host
    if isinstance(host, str) and host.startswith(_REDIS):
        return host
    if isinstance(host, str) and host.startswith(_SENTINEL):
        return _sentinel(host)
    shown = host.partition("://")[0] if isinstance(host, str) else host
    raise LayerConfigError(
        f'backend: {shown!r} is not known. Expected "local", redis://, rediss://, unix://, '
        "redis+sentinel://, amqp://, amqps://, or a list of Redis URLs"
    )


def _sentinel(url: str) -> dict[str, Any]:
    """Return what channels_redis wants for redis+sentinel://[:PASSWORD@]HOST:PORT,…/MASTER[/DB]."""
    parts = urlsplit(url)
    credentials, _, addresses = parts.netloc.rpartition("@")
    master, _, database = parts.path.strip("/").partition("/")
    try:
        sentinels = [_address(one) for one in addresses.split(",")]
        number = int(database) if database else 0
    except ValueError:
        sentinels = []
    if not sentinels or not master:
        raise LayerConfigError(
            "backend: expected redis+sentinel://HOST:PORT,HOST:PORT/MASTER or …/MASTER/DATABASE"
        )
    found: dict[str, Any] = {"sentinels": sentinels, "master_name": master, "db": number}
    user, _, password = credentials.partition(":")
    if user:
        found["username"] = unquote(user)
    if password:
        found["password"] = unquote(password)
    return found


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
    if not host:
        raise ValueError(text)
    return host.strip("[]"), int(port or _SENTINEL_PORT)
