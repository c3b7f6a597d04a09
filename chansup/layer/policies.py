"""How many messages a channel holds, and how long: what a client asks for, what the hub applies."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from chansup.protocol.hub_report import DEFAULT_PATTERN

_MAX_PATTERNS = 1000
_MAX_PATTERN = 1000  # characters
_MAX_KNOWN = 10_000  # channels whose capacity is remembered
MAX_SECONDS = 4_000_000.0  # what fits into a frame, in milliseconds


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """The capacity of channels whose name fits a regular expression."""

    label: str  # as it was written: the name of the rule in logs and statistics
    expression: str
    flags: int
    capacity: int


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """What one channel layer was configured with. It goes for what that layer sends."""

    expiry: float
    group_expiry: float
    capacity: int
    rules: tuple[Rule, ...] = ()


def rules(given: Mapping[Any, int] | Iterable[tuple[Any, int]]) -> tuple[Rule, ...]:
    """Return the rules for globs and compiled regular expressions. Raises ValueError."""
    found = []
    for pattern, capacity in given.items() if isinstance(given, Mapping) else given:
        if isinstance(pattern, re.Pattern):
            label, expression, flags = str(pattern.pattern), str(pattern.pattern), pattern.flags
        elif isinstance(pattern, str):
            label, expression, flags = pattern, fnmatch.translate(pattern), 0
        else:
            raise ValueError(
                f"channel_capacity: {pattern!r} is neither a glob nor a compiled expression"
            )
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise ValueError(
                f"channel_capacity: {label!r} has {capacity!r}, expected a number from 1 on"
            )
        if len(expression) > _MAX_PATTERN:
            raise ValueError(f"channel_capacity: {label[:40]!r}… is too long")
        found.append(Rule(label, expression, flags, capacity))
    if len(found) > _MAX_PATTERNS:
        raise ValueError(f"channel_capacity: {len(found)} patterns, expected at most 1000")
    return tuple(found)


class Capacities:
    """Finds the capacity of a channel, and remembers it. Raises ValueError for a bad policy."""

    __slots__ = ("_compiled", "_known", "default", "expiry", "group_expiry", "policy")

    def __init__(self, policy: Policy) -> None:
        if not (0 < policy.expiry <= MAX_SECONDS and 0 < policy.group_expiry <= MAX_SECONDS * 1000):
            raise ValueError("expiry and group_expiry must be above 0, and not for ever")
        if policy.capacity < 1 or len(policy.rules) > _MAX_PATTERNS:
            raise ValueError("the capacity must be 1 or more")
        self.policy = policy
        self.expiry = policy.expiry
        self.group_expiry = policy.group_expiry
        self.default = (policy.capacity, DEFAULT_PATTERN)
        self._known: dict[bytes, tuple[int, str]] = {}
        self._compiled = []
        for rule in policy.rules:
            if len(rule.expression) > _MAX_PATTERN or rule.capacity < 1:
                raise ValueError("a pattern is too long, or its capacity below 1")
            try:
                self._compiled.append((re.compile(rule.expression, rule.flags), rule))
            except (re.error, RecursionError, OverflowError, ValueError) as error:
                raise ValueError(f"{rule.label!r} is no regular expression: {error}") from None

    def find(self, channel: bytes) -> tuple[int, str]:
        """Return the capacity of a channel, and the pattern that says so."""
        if not self._compiled:
            return self.default
        known = self._known.get(channel)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[channel] = self._look_up(channel.decode("ascii", "replace"))
        return known

    def _look_up(self, channel: str) -> tuple[int, str]:
        for expression, rule in self._compiled:
            if expression.match(channel):
                return rule.capacity, rule.label
        return self.default
