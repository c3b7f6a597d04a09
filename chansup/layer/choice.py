"""`CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}`: what the site says."""

import difflib
import importlib
import inspect
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from chansup.layer import discovery
from chansup.layer.discovery import Place
from chansup.layer.errors import LayerConfigError, NoHub
from chansup.layer.in_hand import watched

_REDIS = ("redis://", "rediss://", "unix://")
_SENTINEL = "redis+sentinel://"
_RABBITMQ = ("amqp://", "amqps://")
_SENTINEL_PORT = 26379
_OURS = ("host", "hosts", "address", "on_disconnect", "on_reconnect")  # not to be set in the file


class ChannelLayer:
    """Makes the channel layer of this site: chansup's own, channels_redis' or channels_rabbitmq's.

    Arguments win over what the config says.
    """

    def __new__(cls, **config: Any) -> Any:
        """Return the layer. Raises LayerConfigError."""
        if "backend" in config or "address" in config:
            place = Place(config.pop("backend", "local"), config.pop("address", None), {})
        else:
            try:
                place = discovery.find()
            except NoHub:  # whoever uses the layer will hear of it
                place = Place()
        return make(place, config)


def make(place: Place, config: dict[str, Any]) -> Any:
    """Return the layer at a place. Raises LayerConfigError."""
    options = {**place.options, **config}
    if place.backend == "local":
        from chansup.layer.local import LocalChannelLayer

        return _made(LocalChannelLayer, {"address": place.address, **options})
    hosts = _hosts(place)
    if _is_rabbitmq(hosts):
        return watched(_made(_rabbitmq(), {"host": hosts[0], **options}))
    if not hosts:
        raise LayerConfigError("backend: the list of hosts is empty")
    pubsub = options.pop("pubsub", False)
    if not isinstance(pubsub, bool):
        raise LayerConfigError(f"pubsub: {pubsub!r}, expected true or false")
    decoded = [_patient(_host(host)) for host in hosts]
    core = _imported("channels_redis.core", "RedisChannelLayer", "redis")
    if not pubsub:
        return watched(_made(core, {"hosts": decoded, **options}))
    layer = _imported("channels_redis.pubsub", "RedisPubSubChannelLayer", "redis")
    # It passes over what it does not know. What core knows may stand in the file for both.
    _check_names(options, [*_names(core), "on_disconnect", "on_reconnect"])
    return watched(_made(layer, {"hosts": decoded, **options}))


def problem(place: Place) -> str | None:
    """Return why `make` would fail at a place, as far as that shows without a server."""
    try:
        if _is_rabbitmq(_hosts(place)):  # which is made in an event loop only
            _check_names(place.options, _names(_rabbitmq()))
        else:
            make(Place(place.backend, place.address or "/", place.options), {})
    except LayerConfigError as error:
        return str(error)
    return None


def _hosts(place: Place) -> list[Any]:
    return place.backend if isinstance(place.backend, list) else [place.backend]


def _is_rabbitmq(hosts: list[Any]) -> bool:
    return len(hosts) == 1 and isinstance(hosts[0], str) and hosts[0].startswith(_RABBITMQ)


def _rabbitmq() -> Any:
    return _imported("channels_rabbitmq.core", "RabbitmqChannelLayer", "rabbitmq")


def _made(layer: Any, options: dict[str, Any]) -> Any:
    names = _names(layer)
    if names:
        _check_names(options, names)
    try:
        return layer(**options)
    except (LayerConfigError, RuntimeError):  # the latter: of where it is made, not of options
        raise
    except Exception as error:  # channels_redis asserts, too
        what = str(error)
        if not isinstance(error, TypeError | ValueError):
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise LayerConfigError(
            f"the channel layer does not take what [channel_layer.options], or CONFIG of the"
            f" settings, say: {what}"
        ) from None


def _names(layer: Any) -> list[str]:
    """Return the options that a class takes; none if it takes any."""
    parameters = inspect.signature(layer).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    return [parameter.name for parameter in parameters]


def _check_names(options: dict[str, Any], names: Sequence[str]) -> None:
    for option in options:
        if option not in names:
            close = difflib.get_close_matches(option, names, n=1)
            meant = f": did you mean {close[0]!r}?" if close else ""
            known = ", ".join(name for name in names if name not in _OURS)
            raise LayerConfigError(
                f"the channel layer has no option {option!r}{meant or f'. It has {known}'}"
            )


def _imported(module: str, name: str, extra: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = module.partition(".")[0]
        raise LayerConfigError(
            f"the channel layer needs {package}, which cannot be imported ({error}): "
            f"pip install 'chansup[{extra}]'"
        ) from None


def _patient(host: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a host's connections, without a limit for answers.

    Waiting for the next message may take for ever. redis-py 8 gives up after 5 seconds: the
    consumer ends with a TimeoutError, and its WebSocket with it (django/channels_redis#422). With
    any other limit a consumer on Python 3.11 may overlook that it was cancelled, and never end.
    A machine that is gone is found by TCP's keepalive. A URL's ?socket_timeout= wins.
    """
    return {"socket_timeout": None, **host}


def _host(host: Any) -> dict[str, Any]:
    if isinstance(host, dict):
        return host
    if isinstance(host, str) and host.startswith(_REDIS):
        return {"address": host}
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
