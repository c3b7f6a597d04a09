"""Finds the channel layer that a worker consumes from."""

from typing import Any

from chansup.errors import ChansupError
from chansup.layer import choice
from chansup.layer.choice import ChannelLayer
from chansup.layer.local import LocalChannelLayer
from chansup.protocol.channel_layer import Place
from chansup.worker import redis
from chansup.worker.errors import WorkerConfigError
from chansup.worker.sources import LocalSource, PlainSource, Source

DEFAULT = "default"
_SUGGESTION = 'CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}'
_REMEDY = f"set {_SUGGESTION}"
_OF_ONE_PROCESS = "channels.layers.InMemoryChannelLayer"


def find(alias: str) -> Any:
    """Return the layer of that name in the project's settings. Raises WorkerConfigError.

    Where there is no Django, it is that of the site.
    """
    if _entry(alias) is None:
        return _made(lambda: ChannelLayer())
    from channels.layers import channel_layers

    return _made(lambda: channel_layers[alias])


def problem(alias: str, *, redeliver: bool) -> str | None:
    """Return what is wrong with the layer of that name, as far as the settings alone say it."""
    try:
        entry = _entry(alias)
    except WorkerConfigError as error:
        return str(error)
    if entry is None:
        return None
    backend = entry.get("BACKEND") if isinstance(entry, dict) else None
    if backend == _OF_ONE_PROCESS:
        return f"{backend} knows only its own process, and no message reaches a worker: {_REMEDY}"
    if redeliver and isinstance(backend, str) and not backend.startswith("chansup."):
        return f"redeliver needs chansup's own channel layer, and this is {backend}: {_REMEDY}"
    return None


def problem_of_site(place: Place) -> str | None:
    """Return what is wrong with the layer that the config names, and with its options."""
    return choice.problem(place)


def _entry(alias: str) -> Any:
    """Return what the settings say of a layer; None without settings. Raises WorkerConfigError."""
    settings = _settings()
    if settings is None:
        if alias != DEFAULT:
            raise WorkerConfigError(
                f'layer = "{alias}" is a name in Django\'s CHANNEL_LAYERS, and the app has no '
                "Django settings: remove it"
            )
        return None
    where = f"in {getattr(settings, 'SETTINGS_MODULE', None) or 'the settings'}"
    try:
        import channels.layers  # noqa: F401
    except ImportError as error:
        raise WorkerConfigError(
            f'Channels cannot be imported ({error}): pip install "channels>=4"'
        ) from None
    configured = getattr(settings, "CHANNEL_LAYERS", None) or {}
    if not configured:
        raise WorkerConfigError(f"no channel layer is configured: set {_SUGGESTION} {where}")
    if alias not in configured:
        known = ", ".join(f'"{name}"' for name in configured)
        raise WorkerConfigError(f'CHANNEL_LAYERS {where} has no "{alias}", it has {known}')
    return configured[alias]


def _settings() -> Any:
    """Return Django's settings, or None where nobody has named any."""
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
    except ImportError:
        return None
    try:
        settings.INSTALLED_APPS  # noqa: B018 - reads the module that has them
    except ImproperlyConfigured:
        return None
    return settings


def _made(make: Any) -> Any:
    try:
        return make()
    except ChansupError as error:
        raise WorkerConfigError(str(error)) from None
    except Exception as error:
        raise WorkerConfigError(
            f"the channel layer cannot be made: {type(error).__name__}: {error}"
        ) from None


def source_of(layer: Any, *, redeliver: bool) -> Source:
    """Return how to take messages from a layer. Raises WorkerConfigError."""
    if isinstance(layer, LocalChannelLayer):
        return LocalSource(layer, until_done=redeliver)
    if redeliver:
        raise WorkerConfigError(
            f"redeliver needs chansup's own channel layer, and this one is "
            f"{type(layer).__module__}.{type(layer).__qualname__}: remove redeliver, or use "
            f"{_SUGGESTION}"
        )
    return redis.RedisSource(layer) if redis.is_usable(layer) else PlainSource(layer)
