"""What text for people has in common, in the supervisor and in the commands.

What processes print is never trusted: control characters do not reach a terminal.
"""

import re
import zlib

# SGR foreground colours (ECMA-48) of slots: `chansup run` and `chansup logs` colour one slot alike.
_SLOT_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_OWN_COLOUR = 90
OWN_SLOT = "chansup"  # the slot of the supervisor's own messages

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_COLOUR_SEQUENCE = re.compile(r"(\x1b\[[0-9;:]*m)")
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
_COLOUR_OR_CONTROL = re.compile(
    "(\x1b\\[[0-9;:]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]"  # the last two end lines, too
)
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110, section 5.6.2


def slot_colour(slot: str) -> int:
    """Return the SGR code of the foreground colour of a slot's name."""
    if slot == OWN_SLOT:
        return _OWN_COLOUR
    return _SLOT_COLOURS[zlib.crc32(slot.encode()) % len(_SLOT_COLOURS)]


def visible_but_colours(text: str) -> str:
    """Return `text` with every control character but LF, tab and colours made visible."""
    return _COLOUR_OR_CONTROL.sub(lambda match: match[1] or _escaped(match[0]), text)


def clean(text: str) -> str:
    """Return a line without escape sequences and control characters."""
    return _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text))


def clean_but_colours(text: str) -> str:
    """Return a line whose only escape sequences are those that set colours."""
    pieces = _COLOUR_SEQUENCE.split(text)
    if len(pieces) == 1:
        return clean(text)
    kept = "".join(piece if place % 2 else clean(piece) for place, piece in enumerate(pieces))
    return f"{kept}\x1b[0m"


def visible(text: str) -> str:
    """Return `text` on one line: whatever is not printable is written as Python writes it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def visible_lines(text: str) -> str:
    """Return `text` with its lines and its indentation, everything else made visible."""
    return "\n".join(visible(line.expandtabs(4)) for line in text.split("\n"))


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: "3d 4h", "12s"."""
    whole = max(0, int(seconds))
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"),
                                       (60, "m", 1, "s")):  # fmt: skip
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // below}{smaller}"
    return f"{whole}s"


def short_duration(seconds: float) -> str:
    """Return a duration in one unit, with two or three digits: "2.5 ms", "12 s"."""
    if seconds < 1e-4:
        return "<0.1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def size(count: float) -> str:
    """Return a number of bytes with a unit that suits it: "512 B", "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def header(text: str) -> tuple[str, str] | None:
    """Return name and value of "Name: value"; None if that is not a header field of HTTP."""
    name, colon, value = text.partition(":")
    value = value.strip()
    if not colon or not TOKEN.match(name) or _CONTROL.search(value):
        return None
    return name, value
