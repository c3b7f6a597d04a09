"""How many messages a channel holds, and how long: what a client asks for, what the hub applies."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from chansup.layer.expressions import Expression
from chansup.protocol.hub_report import DEFAULT_PATTERN

_MAX_PATTERNS = 1000
_MAX_PATTERN = 1000  # characters
_MAX_EXPRESSIONS = 20  # that are not globs: matching one may take a millisecond
_MAX_KNOWN = 10_000  # channels whose capacity is remembered
MAX_SECONDS = 4_000_000.0  # what fits into a frame, in milliseconds


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """The capacity of channels whose name fits a glob, or a regular expression.

    The flags of a glob are 0, and those of an expression never are: `re` adds UNICODE or ASCII.
    """

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
    _check_number(found)
    for rule in found:
        try:
            _matcher(rule)
        except ValueError as error:
            raise ValueError(f"channel_capacity: {error}. Write a glob instead") from None
    return tuple(found)


def _check_number(given: Sequence[Rule]) -> None:
    expressions = sum(rule.flags != 0 for rule in given)
    if len(given) > _MAX_PATTERNS:
        raise ValueError(f"channel_capacity: {len(given)} patterns, expected at most 1000")
    if expressions > _MAX_EXPRESSIONS:
        raise ValueError(
            f"channel_capacity: {expressions} compiled expressions, expected at most"
            f" {_MAX_EXPRESSIONS}: write globs instead"
        )


def _matcher(rule: Rule) -> Callable[[str], object]:
    """Return what says whether a name fits, in a time that is bounded. Raises ValueError."""
    if rule.flags:
        return Expression(rule.expression, rule.flags).matches
    return re.compile(fnmatch.translate(rule.label)).match  # never backtracks over a "*"


class Capacities:
    """Finds the capacity of a channel, and remembers it. Raises ValueError for a bad policy."""

    __slots__ = ("_known", "_matchers", "default", "expiry", "group_expiry", "policy")

    def __init__(self, policy: Policy) -> None:
        if not (0 < policy.expiry <= MAX_SECONDS and 0 < policy.group_expiry <= MAX_SECONDS * 1000):
            raise ValueError("expiry and group_expiry must be above 0, and not for ever")
        if policy.capacity < 1:
            raise ValueError("the capacity must be 1 or more")
        _check_number(policy.rules)
        self.policy = policy
        self.expiry = policy.expiry
        self.group_expiry = policy.group_expiry
        self.default = (policy.capacity, DEFAULT_PATTERN)
        self._known: dict[bytes, tuple[int, str]] = {}
        self._matchers: list[tuple[Callable[[str], object], Rule]] = []
        for rule in policy.rules:
            if max(len(rule.expression), len(rule.label)) > _MAX_PATTERN or rule.capacity < 1:
                raise ValueError("a pattern is too long, or its capacity below 1")
            self._matchers.append((_matcher(rule), rule))

    def find(self, channel: bytes) -> tuple[int, str]:
        """Return the capacity of a channel, and the pattern that says so."""
        if not self._matchers:
            return self.default
        known = self._known.get(channel)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[channel] = self._look_up(channel.decode("ascii", "replace"))
        return known

    def _look_up(self, channel: str) -> tuple[int, str]:
        for matches, rule in self._matchers:
            if matches(channel):
                return rule.capacity, rule.label
        return self.default
