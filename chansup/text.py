"""What text for people has in common, in the supervisor and in the commands."""

import zlib

# SGR foreground colours (ECMA-48) of slots: `chansup run` and `chansup logs` colour one slot alike.
_SLOT_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_OWN_COLOUR = 90
OWN_SLOT = "chansup"  # the slot of the supervisor's own messages


def slot_colour(slot: str) -> int:
    """Return the SGR code of the foreground colour of a slot's name."""
    if slot == OWN_SLOT:
        return _OWN_COLOUR
    return _SLOT_COLOURS[zlib.crc32(slot.encode()) % len(_SLOT_COLOURS)]
