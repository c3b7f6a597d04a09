"""Which line of a TOML document a key stands on; tomli itself does not say."""

import tomli

from chansup.config.keys import Key


class Lines:
    """The lines of one valid TOML document, worked out when first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: dict[Key, int] | None = None

    def of(self, key: Key) -> int | None:
        """Return the line (from 1) of `key`, or of the nearest table around it; None if none is."""
        if self._lines is None:
            self._lines = _read(self._text)
        while key:
            if key in self._lines:
                return self._lines[key]
            key = key[:-1]
        return None


def _read(text: str) -> dict[Key, int]:
    """Return the line on which the statement of each key begins.

    A statement is complete as soon as its lines parse alone: in a valid document, nothing that
    begins a longer statement does.
    """
    lines: dict[Key, int] = {}
    lengths: dict[Key, int] = {}  # of arrays of tables so far
    table: Key = ()
    statement = ""
    start = 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            parsed = tomli.loads(statement)
        except tomli.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            table = _header(parsed, statement.lstrip().startswith("[["), lengths)
            for length in range(1, len(table)):
                lines.setdefault(table[:length], start)
            lines[table] = start
        else:
            _note(parsed, table, start, lines)
        statement = ""
    return lines


def _header(parsed: dict[str, object], is_array: bool, lengths: dict[Key, int]) -> Key:
    """Return the full key of a header, with the positions in the arrays of tables it names."""
    key: Key = ()
    names = _names(parsed)
    for position, name in enumerate(names, start=1):
        key = (*key, name)
        if is_array and position == len(names):
            lengths[key] = lengths.get(key, 0) + 1
        if key in lengths:
            key = (*key, lengths[key] - 1)
    return key


def _names(parsed: object) -> list[str]:
    names: list[str] = []
    while True:
        if isinstance(parsed, list):
            parsed = parsed[0]
        if not (isinstance(parsed, dict) and parsed):
            return names
        name, parsed = next(iter(parsed.items()))
        names.append(name)


def _note(value: object, key: Key, line: int, lines: dict[Key, int]) -> None:
    if key:
        lines.setdefault(key, line)
    if isinstance(value, dict):
        for name, inner in value.items():
            _note(inner, (*key, name), line, lines)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _note(inner, (*key, position), line, lines)
