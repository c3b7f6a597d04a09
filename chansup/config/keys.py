"""Where something stands in a config: a path of table names, keys and list positions."""

import re

from chansup.text import visible

Key = tuple[str | int, ...]
Finding = tuple[Key, str]  # what is wrong there; becomes a Problem once its line is known

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def dotted(key: Key) -> str:
    """Return the key as a person writes it: ``interface.bind[0]``, ``programs."my clock".user``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.match(part) else quoted(part)
            text += f".{name}" if text else name
    return text


def overlaps(first: Key, second: Key) -> bool:
    """Say whether one of both stands at or inside the other."""
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def quoted(text: str, limit: int = 80) -> str:
    """Return `text` in double quotes, safe to print on any terminal, cut at `limit` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + visible(cut.replace("\\", r"\\").replace('"', r"\"")) + '"'


def listed(names: "list[str] | tuple[str, ...]", last: str = "or") -> str:
    """Return names as a sentence lists them: ``"a", "b" or "c"``."""
    shown = [quoted(name) for name in names]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"
