"""How messages become bytes. The interface, and the constructor's arguments, are channels_redis'.

A project with types of its own registers a class, and names it in `serializer_format`:

    from chansup.layer.serializers import registry
    registry.register_serializer("mine", MySerializer)

or gives an object with `serialize` and `deserialize`, or the dotted path of one, or of a class, as
`serializer`.
"""

import base64
import hashlib
import importlib
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, Protocol, cast

import msgspec

from chansup import private_parts
from chansup.layer.errors import LayerConfigError, MessageTooLarge

MAX_SIZE = 1024 * 1024  # bytes of a message, as MessagePack or as JSON, whichever is less
MAX_FOREIGN_SIZE = 3 * 1024 * 1024 // 2  # of what other serializers make: they may encrypt

_FITTING = frozenset({str, bytes, float, bool, type(None)})
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_MAX_DEPTH = 100


class Serializer(Protocol):
    """Makes bytes of a message, and back."""

    def serialize(self, message: dict[str, Any]) -> bytes:
        """Return the message as bytes."""

    def deserialize(self, message: bytes) -> dict[str, Any]:
        """Return what `serialize` was given."""


class MessagePackSerializer:
    """The default: every type that the specification allows, and no other."""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self.deserialize = msgspec.msgpack.Decoder().decode

    def serialize(self, message: dict[str, Any]) -> bytes:
        """Return the message as bytes. Raises TypeError and MessageTooLarge."""
        plain = _plain(message)
        try:
            body = self._encode(plain)
        except UnicodeEncodeError:
            raise TypeError(
                f"{_place_of_surrogate(plain)}: a str with half of a character (a lone surrogate) "
                "cannot be sent: replace it, or send bytes"
            ) from None
        if len(body) > MAX_SIZE and _json_size(plain) > MAX_SIZE:
            raise MessageTooLarge(
                f"the message has {len(body)} bytes; more than 1 MB cannot be sent. Store it "
                "elsewhere and send a reference, or send it in parts"
            )
        return body


def _json_size(message: dict[str, Any]) -> float:
    try:
        return len(msgspec.json.encode(message))
    except (TypeError, ValueError, OverflowError):
        return math.inf


def _plain(value: Any, path: str = "message", depth: int = 0) -> Any:
    """Return a message in the types of the specification; subclasses of these become these."""
    kind = type(value)
    if kind is dict:
        for key, one in value.items():
            if type(key) is not str or type(one) not in _FITTING:
                break
        else:
            return value
        return {
            _key(key, path): one
            if type(one) in _FITTING
            else _plain(one, f"{path}[{key!r}]", depth + 1)
            for key, one in value.items()
        }
    if kind in _FITTING:
        return value
    if kind is int:
        if _MIN_INT <= value <= _MAX_INT:
            return value
        raise TypeError(f"{path}: {value} does not fit into 64 bits: send it as a str")
    if depth > _MAX_DEPTH:
        raise TypeError(f"{path[:100]}…: nested too deeply, or in itself")
    if kind is list or kind is tuple:
        if _FITTING.issuperset(map(type, value)):
            return value
        return [_plain(one, f"{path}[{place}]", depth + 1) for place, one in enumerate(value)]
    return _of_subclass(value, path, depth)


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return str(key)
    raise TypeError(f"{path}: the key {key!r} is not a str")


def _place_of_surrogate(value: Any, path: str = "message") -> str:
    """Return where in a message a str is that has no UTF-8, "" if there is none."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return path
        return ""
    if isinstance(value, dict):
        if any(_place_of_surrogate(key) for key in value):
            return f"{path}: a key"
        inner = ((one, f"{path}[{key!r}]") for key, one in value.items())
    elif isinstance(value, list | tuple):
        inner = ((one, f"{path}[{place}]") for place, one in enumerate(value))
    else:
        return ""
    return next(filter(None, (_place_of_surrogate(one, where) for one, where in inner)), "")


def _of_subclass(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, bool | int):
        return _plain(int(value), path, depth)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return _plain(dict(value), path, depth)
    if isinstance(value, list | tuple):
        return _plain(list(value), path, depth)
    raise TypeError(
        f"{path}: {type(value).__name__} cannot be sent. A message consists of dict, list, str, "
        "bytes, int, float, bool and None: convert it, or configure a serializer"
    )


class JsonSerializer:
    """Messages as JSON."""

    def serialize(self, message: dict[str, Any]) -> bytes:
        """Return the message as bytes."""
        return json.dumps(message).encode()

    def deserialize(self, message: bytes) -> dict[str, Any]:
        """Return what `serialize` was given."""
        return cast("dict[str, Any]", json.loads(message))


class EncryptingSerializer:
    """Encrypts what another serializer makes, with the first key, and reads all of them.

    No message is too old for it: the hub sees to that, and one that comes back lives on.
    """

    def __init__(self, inner: Serializer, keys: Sequence[str | bytes]) -> None:
        if isinstance(keys, str | bytes):
            raise LayerConfigError("symmetric_encryption_keys: expected a list of keys")
        try:
            fernet = importlib.import_module("cryptography.fernet")
        except ImportError:
            raise LayerConfigError(
                "symmetric_encryption_keys needs the package cryptography: pip install cryptography"
            ) from None
        self._inner = inner
        self._crypter = fernet.MultiFernet([fernet.Fernet(_derived(key)) for key in keys])

    def serialize(self, message: dict[str, Any]) -> bytes:
        """Return the message as bytes."""
        return cast("bytes", self._crypter.encrypt(self._inner.serialize(message)))

    def deserialize(self, message: bytes) -> dict[str, Any]:
        """Return what `serialize` was given."""
        return self._inner.deserialize(self._crypter.decrypt(message))


def _derived(key: str | bytes) -> bytes:
    raw = key.encode() if isinstance(key, str) else key
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest())


class Registry:
    """Serializers by the name of their format."""

    def __init__(self) -> None:
        self._classes: dict[str, Any] = {}

    def register_serializer(self, format: str, serializer_class: type) -> None:
        """Register a class. It is called with the arguments that channels_redis gives."""
        if not (
            isinstance(serializer_class, type)
            and hasattr(serializer_class, "serialize")
            and hasattr(serializer_class, "deserialize")
        ):
            raise LayerConfigError(f"{serializer_class!r} has no serialize and deserialize")
        self._classes[format] = serializer_class

    def get_serializer(
        self, format: str, symmetric_encryption_keys: Any = None, expiry: float = 60
    ) -> Serializer:
        """Return a serializer for a format. Raises LayerConfigError."""
        keys = symmetric_encryption_keys
        own = {"msgpack": MessagePackSerializer, "json": JsonSerializer}.get(format)
        registered = self._classes.get(format)
        if registered is None and own is not None:
            serializer = cast("Serializer", own())
            return EncryptingSerializer(serializer, keys) if keys else serializer
        if registered is None and (other := sys.modules.get("channels_redis.serializers")):
            if problem := private_parts.lacking(private_parts.REDIS_SERIALIZERS):
                raise LayerConfigError(f"serializer_format: {problem}")
            registered = other.registry._registry.get(format)
        if registered is None:
            known = ", ".join(sorted({"msgpack", "json", *self._classes}))
            raise LayerConfigError(
                f"serializer_format: {format!r} is not known, only {known}. Register it with "
                "chansup.layer.serializers.registry"
            )
        found: Serializer = registered(
            symmetric_encryption_keys=keys, random_prefix_length=0, expiry=expiry
        )
        return found


registry = Registry()


def find(
    serializer: Any, serializer_format: str, symmetric_encryption_keys: Any, expiry: float
) -> Serializer:
    """Return the serializer of a layer. Raises LayerConfigError."""
    if serializer is None:
        return registry.get_serializer(serializer_format, symmetric_encryption_keys, expiry)
    if isinstance(serializer, str):
        module, _, name = serializer.rpartition(".")
        try:
            serializer = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise LayerConfigError(f"serializer: cannot import {serializer!r}: {error}") from None
    if isinstance(serializer, type):
        serializer = serializer()
    if not (hasattr(serializer, "serialize") and hasattr(serializer, "deserialize")):
        raise LayerConfigError(f"serializer: {serializer!r} has no serialize and deserialize")
    found = cast("Serializer", serializer)
    if symmetric_encryption_keys:
        return EncryptingSerializer(found, symmetric_encryption_keys)
    return found
