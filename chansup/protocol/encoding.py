"""JSON documents that may hold paths: a path on Linux is bytes, and need not be UTF-8.

Python has such a byte as a lone surrogate, which JSON in UTF-8 cannot hold and msgspec refuses.
Between processes of chansup it travels as a ``\\udcXX`` escape and arrives as it was. What others
read has it spelled out, as ``\\xe9``.
"""

import json
from typing import Any, TypeVar

import msgspec

Document = TypeVar("Document")


def encode(document: object) -> bytes:
    """Return a document for `decode`, which gives back every path as it was."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        plain: Any = msgspec.to_builtins(document)
        return json.dumps(plain, separators=(",", ":")).encode()


def decode(content: bytes | str, kind: type[Document]) -> Document:
    """Return the document. Raises msgspec.DecodeError or msgspec.ValidationError."""
    received = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    if b"\\ud" not in received:
        decoded: Document = msgspec.json.decode(received, type=kind)
        return decoded
    try:
        plain = json.loads(received)
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from None
    converted: Document = msgspec.convert(plain, kind)
    return converted


def encode_for_others(document: object) -> bytes:
    """Return a document that every reader of JSON understands."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return msgspec.json.encode(_spelled_out(msgspec.to_builtins(document)))


def spell_out(text: str) -> str:
    """Return `text` with each byte that is not UTF-8 made visible: for messages and documents."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode(errors="backslashreplace").decode()


def _spelled_out(value: Any) -> Any:
    if isinstance(value, str):
        return spell_out(value)
    if isinstance(value, dict):
        return {_spelled_out(key): _spelled_out(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(one) for one in value]
    return value
