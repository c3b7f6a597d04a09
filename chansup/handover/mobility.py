"""Whether a WebSocket may move to another worker: by its handshake, its route, its app's word."""

from collections.abc import MutableMapping
from typing import Any

from chansup.protocol import sessions

Scope = MutableMapping[str, Any]


class Mobility:
    """What decides, and what was decided when it last mattered."""

    __slots__ = ("_handshake", "_word", "route", "verdict")

    def __init__(self, route: sessions.Handover) -> None:
        """`route`: `handover` of its route."""
        self.route = route
        self.verdict = sessions.Verdict(True)
        self._handshake: sessions.Handshake | None = None  # once it is accepted
        self._word: sessions.Handover | None = None  # the newest of an app

    def accepted(self, scope: Scope, subprotocol: str | None) -> None:
        """Take what tells of a session. An app may speak a subprotocol that it does not name."""
        spoken = scope.get("subprotocols") or () if subprotocol is None else (subprotocol,)
        query = scope.get("query_string", b"")
        self._handshake = sessions.Handshake(scope["path"], query, tuple(spoken))

    def app_decides(self, word: sessions.Handover | None) -> None:
        """Take the app's word, if it has one."""
        self._word = word or self._word

    def decide(self, rules: sessions.Rules) -> None:
        """Decide with present knowledge."""
        if self._handshake is not None:
            self.verdict = sessions.decide(self._handshake, rules, self.route, self._word)
