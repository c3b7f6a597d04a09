"""Names of channels and groups. Stricter than Channels in one point: ASCII is asked for."""

import re

MAX_LENGTH = 100  # characters
_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+(![a-zA-Z0-9\-_.]*)?")
_GROUP = re.compile(r"[a-zA-Z0-9\-_.]+")
_RULE = (
    f"expected a str of 1 to {MAX_LENGTH} ASCII letters, digits, hyphens, underscores and periods"
)


def check_channel(name: object) -> str:
    """Return the name of a channel. Raises TypeError, as Channels does."""
    if isinstance(name, str) and len(name) <= MAX_LENGTH and _CHANNEL.fullmatch(name):
        return name
    raise TypeError(f"Channel name {_shown(name)} is not valid: {_RULE}, with at most one '!'")


def check_group(name: object) -> str:
    """Return the name of a group. Raises TypeError, as Channels does."""
    if isinstance(name, str) and len(name) <= MAX_LENGTH and _GROUP.fullmatch(name):
        return name
    raise TypeError(f"Group name {_shown(name)} is not valid: {_RULE}")


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= MAX_LENGTH + 20 else f"{text[:MAX_LENGTH]}…"
