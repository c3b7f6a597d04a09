"""The pairs of sites that cases are played on: one direct, one through the relay, of each kind."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .processes import Side, direct, relayed


@dataclass(frozen=True)
class Pair:
    server: str
    direct: Side
    relayed: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.direct, self.relayed


class Sites:
    """Starts a pair when it is first asked for, and keeps it for the cases that follow."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._pairs: dict[str, Pair | BaseException] = {}

    def get(self, server: str, name: str = "", options: dict[str, Any] | None = None) -> Pair:
        key = f"{server} {name}"
        if key not in self._pairs:
            try:
                self._pairs[key] = self._start(server, options or {})
            except Exception as error:  # tried once, not for each case
                self._pairs[key] = error
        pair = self._pairs[key]
        if isinstance(pair, BaseException):
            raise pair
        return pair

    def _start(self, server: str, options: dict[str, Any]) -> Pair:
        sides: dict[str, Side] = {}
        stacks = {"direct": contextlib.ExitStack(), "relayed": contextlib.ExitStack()}
        starts = {"direct": direct, "relayed": relayed}

        errors: list[BaseException] = []

        def start(name: str) -> None:
            try:
                sides[name] = stacks[name].enter_context(starts[name](server, options))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=start, args=(name,)) for name in starts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for stack in stacks.values():
            self._stack.enter_context(stack)
        if errors:
            raise errors[0]
        return Pair(server, sides["direct"], sides["relayed"])


@contextlib.contextmanager
def sites() -> Iterator[Sites]:
    with contextlib.ExitStack() as stack:
        yield Sites(stack)
