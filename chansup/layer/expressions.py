"""Regular expressions that take no longer than the name and the expression are long.

`re` backtracks: an expression that a client brings could keep the hub busy for hours. Here all ways
through an expression are followed at the same time, a character at a time (Thompson, "Regular
Expression Search Algorithm", CACM 11/6, 1968). What that cannot do, references to groups and looks
around, is refused.
"""

import re

_MAX_STATES = 500  # of one expression
_MAX_DEPTH = 50  # groups in groups
_NOTHING = -1
_ALL = (1 << 128) - 1  # names are ASCII: a set of characters is a number of 128 bits
_DIGITS = sum(1 << ord(one) for one in "0123456789")
_SPACES = sum(1 << ord(one) for one in " \t\n\r\f\v\x1c\x1d\x1e\x1f")
_WORDS = sum(1 << code for code in range(128) if chr(code).isalnum() or chr(code) == "_")
_CLASSES = {
    "d": _DIGITS, "D": _ALL & ~_DIGITS, "s": _SPACES, "S": _ALL & ~_SPACES,
    "w": _WORDS, "W": _ALL & ~_WORDS,
}  # fmt: skip
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_NAMED_GROUP = re.compile(r"\?P<\w+>")
_FLAGS = re.compile(r"\A\(\?[a-zA-Z]+\)")  # of the whole: a compiled expression has them beside it
_BOUNDS = re.compile(r"\{(\d*)(,?)(\d*)\}")
_CHARACTER, _SPLIT, _BEGIN, _END, _ACCEPT = range(5)
Piece = tuple[str, object]  # kind, and what it is made of
State = tuple[int, int, tuple[int, ...]]  # kind, set of characters, what follows


class Expression:
    """A compiled expression. Raises ValueError for unsupported syntax."""

    __slots__ = ("_begin", "_states")

    def __init__(self, text: str, flags: int = 0) -> None:
        if flags & re.VERBOSE:
            raise ValueError(f"{text!r}: re.VERBOSE is not supported")
        self._states: list[State] = []
        accept = self._add((_ACCEPT, 0, ()))
        self._begin = self._build(_Parser(text, bool(flags & re.IGNORECASE)).parse(), accept)

    def matches(self, name: str) -> bool:
        """Say whether a name begins with a match, as `re.match` does."""
        size = len(name)
        current = self._reached((self._begin,), 0, size)
        for place, character in enumerate(name, 1):
            if current is None:
                return True
            code = ord(character)
            following = [
                state[2][0]
                for state in (self._states[number] for number in current)
                if code < 128 and state[1] >> code & 1
            ]
            if not following:
                return False
            current = self._reached(tuple(following), place, size)
        return current is None

    def _reached(self, begin: tuple[int, ...], place: int, size: int) -> list[int] | None:
        """Return the characters that may follow; None: it matches already."""
        found = []
        pending, seen = list(begin), set(begin)
        while pending:
            kind, _, following = self._states[pending[-1]]
            number = pending.pop()
            if kind == _ACCEPT:
                return None
            if kind == _CHARACTER:
                found.append(number)
            elif kind == _SPLIT or place == (0 if kind == _BEGIN else size):
                pending += [one for one in following if one not in seen]
                seen.update(following)
        return found

    # From the end to the beginning: each piece is told what follows it

    def _add(self, state: State) -> int:
        if len(self._states) >= _MAX_STATES:
            raise ValueError("the expression is too large")
        self._states.append(state)
        return len(self._states) - 1

    def _build(self, piece: Piece, after: int) -> int:
        kind, content = piece
        if kind == "set":
            assert isinstance(content, int)
            return self._add((_CHARACTER, content, (after,)))
        if kind == "begin":
            return self._add((_BEGIN, 0, (after,)))
        if kind == "end":
            return self._add((_END, 0, (after,)))
        if kind == "repeat":
            return self._build_repeat(content, after)
        assert isinstance(content, list)
        if kind == "sequence":
            for one in reversed(content):
                after = self._build(one, after)
            return after
        branches = tuple(self._build(one, after) for one in content)
        return branches[0] if len(branches) == 1 else self._add((_SPLIT, 0, branches))

    def _build_repeat(self, content: object, after: int) -> int:
        assert isinstance(content, tuple)
        piece, least, most = content
        if most is None:
            again = self._add((_SPLIT, 0, (after,)))
            self._states[again] = (_SPLIT, 0, (self._build(piece, again), after))
            after = again
        else:
            for _ in range(most - least):
                after = self._add((_SPLIT, 0, (self._build(piece, after), after)))
        for _ in range(least):
            after = self._build(piece, after)
        return after


class _Parser:
    """What `re` understands, without what needs backtracking."""

    def __init__(self, text: str, ignore_case: bool) -> None:
        self._text = _FLAGS.sub("", text)
        self._ignore_case = ignore_case
        self._place = 0
        self._depth = 0

    def parse(self) -> Piece:
        try:
            found = self._branches()
        except IndexError:
            raise ValueError(f"{self._text!r} ends too early") from None
        if self._place < len(self._text):
            raise self._unsupported(")")
        return found

    def _unsupported(self, what: str) -> ValueError:
        return ValueError(f"{self._text!r}: {what!r} is not supported at {self._place}")

    def _peek(self, expected: str) -> bool:
        return self._text.startswith(expected, self._place)

    def _next(self) -> str:
        self._place += 1
        return self._text[self._place - 1]

    def _skip(self, expected: str) -> bool:
        found = self._peek(expected)
        self._place += len(expected) if found else 0
        return found

    def _branches(self) -> Piece:
        branches = [self._sequence()]
        while self._skip("|"):
            branches.append(self._sequence())
        return ("branches", branches)

    def _sequence(self) -> Piece:
        pieces: list[Piece] = []
        while self._place < len(self._text) and not self._peek("|") and not self._peek(")"):
            pieces.append(self._repeated(self._atom()))
        return ("sequence", pieces)

    def _repeated(self, piece: Piece) -> Piece:
        if self._skip("*"):
            least, most = 0, None
        elif self._skip("+"):
            least, most = 1, None
        elif self._skip("?"):
            least, most = 0, 1
        else:
            bounds = _BOUNDS.match(self._text, self._place)
            if bounds is None or not (bounds[1] or bounds[3]):
                return piece
            self._place = bounds.end()
            least = int(bounds[1] or 0)
            most = (int(bounds[3]) if bounds[3] else None) if bounds[2] else least
            if max(least, most or 0) > _MAX_STATES or (most is not None and most < least):
                raise self._unsupported(bounds[0])
        self._skip("?")  # how much it takes makes no difference to whether it matches
        for wrong in "*+?{":
            if self._peek(wrong) and (wrong != "{" or _BOUNDS.match(self._text, self._place)):
                raise self._unsupported(wrong)
        return ("repeat", (piece, least, most))

    def _atom(self) -> Piece:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return ("set", self._cased(self._class()))
        if character == ".":
            return ("set", _ALL & ~(1 << ord("\n")))
        if character == "^":
            return ("begin", None)
        if character == "$":
            return ("end", None)
        if character in "*+?":
            raise self._unsupported(character)
        if character != "\\":
            return ("set", self._cased(self._one(character)))
        if self._skip("A"):
            return ("begin", None)
        if self._skip("Z"):
            return ("end", None)
        return ("set", self._cased(self._escaped()))

    def _group(self) -> Piece:
        if self._peek("?") and not self._skip("?:"):
            named = _NAMED_GROUP.match(self._text, self._place)
            if named is None:
                raise self._unsupported(self._text[self._place - 1 : self._place + 2])
            self._place = named.end()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._unsupported("(")
        found = self._branches()
        self._depth -= 1
        if self._next() != ")":
            raise self._unsupported("(")
        return found

    def _escaped(self) -> int:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _CONTROLS:
            return self._one(_CONTROLS[character])
        if character.isalnum():
            raise self._unsupported("\\" + character)
        return self._one(character)

    @staticmethod
    def _one(character: str) -> int:
        code = ord(character)
        return 1 << code if code < 128 else 0

    def _class(self) -> int:
        negated = self._skip("^")
        found, is_first = 0, True
        while is_first or not self._peek("]"):
            is_first = False
            low = self._member()
            if self._peek("-") and self._text[self._place + 1] != "]":
                self._place += 1
                high = self._member()
                if low.bit_count() != 1 or high.bit_count() != 1 or high < low:
                    raise self._unsupported("-")
                found |= (high << 1) - low
            else:
                found |= low
        self._place += 1
        return _ALL & ~self._cased(found) if negated else found

    def _member(self) -> int:
        character = self._next()
        if character != "\\":
            return self._one(character)
        return 1 << 8 if self._skip("b") else self._escaped()

    def _cased(self, found: int) -> int:
        if self._ignore_case:
            for code in range(ord("a"), ord("z") + 1):
                upper = code - 32
                if (found >> code | found >> upper) & 1:
                    found |= 1 << code | 1 << upper
        return found
