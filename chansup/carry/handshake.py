"""The handshake of a WebSocket: recorded, repeated, compared. RFC 6455, section 4; RFC 7692."""

import msgspec

from chansup.carry.errors import RecordError

END = b"\r\n\r\n"
MAX_HEAD = 64 * 1024  # bytes of an answer
_SWITCHING = b"HTTP/1.1 101"
_PARAMETER = b"client_no_context_takeover"
_EXTENSION = b"permessage-deflate"


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What another process needs to continue with a WebSocket."""

    id: str  # the same at each process, of no other WebSocket of this machine
    request: bytes  # as the server's protocol got it
    answer: list[bytes]  # `agreement` of the first answer
    path: str  # as the app sees it, decoded
    query: bytes
    host: bytes | None
    subprotocols: tuple[str, ...]  # the accepted one, else those that the client offered


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return a record as it is kept in a slot."""
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """Return a record that was kept. Raises RecordError."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"a handshake that cannot be read: {error}") from None


def switches(head: bytes) -> bool:
    """Say whether the head of a response accepts a WebSocket."""
    return head.startswith(_SWITCHING)


def split(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the head of a response with the blank line, and what follows; None: not whole yet."""
    end = data.find(END)
    if end < 0:
        return None
    end += len(END)
    return data[:end], data[end:]


def stateless(head: bytes) -> bytes:
    """Have the client compress each message for itself, so that no window has to move.

    RFC 7692, section 7.1.1.2: a server may ask for it though the client did not offer it.
    """
    lines = head.split(b"\r\n")
    for place, line in enumerate(lines):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"sec-websocket-extensions":
            offers = value.split(b",")
            lines[place] = name + b":" + b",".join(map(_stateless_extension, offers))
    return b"\r\n".join(lines)


def _stateless_extension(extension: bytes) -> bytes:
    name, *parameters = (part.strip().lower() for part in extension.split(b";"))
    if name != _EXTENSION or _PARAMETER in parameters:
        return extension
    return extension.rstrip() + b"; " + _PARAMETER


def agreement(head: bytes) -> list[bytes]:
    """Return what was agreed upon with the client: the ``Sec-WebSocket-`` lines of an answer."""
    found = []
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name = name.strip().lower()
        if name.startswith(b"sec-websocket-"):
            found.append(name + b": " + value.strip())
    return sorted(found)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame of a server: RFC 6455, section 5.5.1."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x88, len(payload))) + payload
