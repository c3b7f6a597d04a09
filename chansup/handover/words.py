"""What an app says about handovers, checked: its checkpoint, and whether it may be moved.

Each function returns a plain value, or raises an exception that is the app's.
"""

from collections.abc import MutableMapping
from typing import Any

from chansup.handover.errors import UnexpectedEvent
from chansup.handover.extension import CHECKPOINT, POLICY
from chansup.protocol.sessions import WORDS

MAX_CHECKPOINT = 16 * 1024  # bytes


def data(value: Any, name: str) -> bytes:
    """Return bytes-like `value` as bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f'"{name}": expected bytes, not {type(value).__name__}')


def text(value: Any, name: str) -> str:
    """Return `value`, a str or a kind of it, as a plain str."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f'"{name}": expected a str, not {type(value).__name__}')


def word(value: Any, name: str) -> int:
    """Return the number by which the app's word on handovers travels, from 1 on."""
    if value not in WORDS:
        raise ValueError(f'"{name}": expected "transparent" or "close", not {value!r}')
    return WORDS.index(value) + 1


def policy(message: MutableMapping[str, Any]) -> int:
    """Return the same of the event by which an app says it at any time."""
    return word(message["handover"], f'{POLICY}", "handover')


def checkpoint(value: Any) -> bytes | str:
    """Return a checkpoint as a plain value, of 16 KiB at most."""
    checked: bytes | str
    if isinstance(value, str):
        checked = text(value, "checkpoint")
        size = len(checked.encode())
    else:
        checked = data(value, "checkpoint")
        size = len(checked)
    if size > MAX_CHECKPOINT:
        raise UnexpectedEvent(
            f'"{CHECKPOINT}": expected bytes or str of at most {MAX_CHECKPOINT} bytes, '
            f"not of {size}"
        )
    return checked
