"""Which of this process's WebSockets may move to another one, and how."""

import logging

from chansup.carry.handshake import Record
from chansup.config import routes
from chansup.protocol import sessions
from chansup.protocol.launch import Carry
from chansup.protocol.roster import Route
from chansup.protocol.sessions import WORDS, Handshake, Verdict

_log = logging.getLogger("chansup.carry")


class Policy:
    """What the config says, for each WebSocket."""

    def __init__(self, settings: Carry) -> None:
        """Take the settings. Raises ValueError for a route that is none."""
        self._settings = settings
        self._default = Route("websocket", settings.handover, settings.redeliver)
        self._table = routes.Table((routes.parse(one.route), one) for one in settings.routes)
        self._said: set[str] = set()

    def _route(self, record: Record) -> Route:
        found = self._table.match("websocket", record.host, record.path)
        return found or self._default

    def redelivers(self, record: Record) -> bool:
        """Whether a message that was in hand at a crash is given again."""
        return self._route(record).redeliver

    def verdict(self, record: Record, word: int) -> Verdict:
        """Return whether a WebSocket may move; `word` of its app: a place in WORDS plus 1, or 0."""
        facts = Handshake(record.path, record.query, record.subprotocols)
        said = WORDS[word - 1] if 0 < word <= len(WORDS) else None
        return sessions.decide(facts, self._settings.rules, self._route(record).handover, said)

    def say_once(self, verdict: Verdict) -> None:
        """Log why WebSockets are closed and not moved, once for each reason."""
        if verdict.reason:
            self.warn_once(
                "WebSockets are closed with 1012 and not moved, for a new process would not know "
                f"their session: {verdict.reason}. To overrule: [handover] move"
            )

    def warn_once(self, text: str) -> None:
        """Log a warning, once."""
        if text not in self._said:
            self._said.add(text)
            _log.warning("%s", text)
