"""What was not delivered: counted by reason and pattern, and told, but not all the time."""

import logging
import time
from collections import Counter

from chansup.layer.hub.limits import MEMORY
from chansup.protocol.hub_report import Drop

logger = logging.getLogger("chansup.layer.hub")

_INTERVAL = 10.0  # seconds between two warnings of the same reason and pattern

# Of what may be somebody's fault; the pattern, and "was" or "were".
_EXPLANATIONS: dict[str, str] = {
    Drop.FULL: '{were} refused, because channels of the pattern "{pattern}" were full. Read faster,'
    " or raise capacity or channel_capacity. A consumer does not read while its handler sends: a"
    " burst to a group that it is in itself fills its own channel",
    Drop.EXPIRED: 'for channels of the pattern "{pattern}" expired unread',
    Drop.MEMORY: 'for channels of the pattern "{pattern}" {were} refused, because the hub holds as '
    f"much as it may ({MEMORY})",
    Drop.GONE: 'for channels of the pattern "{pattern}" {were} dropped, because the processes that '
    "read these have ended",
    Drop.LOST: "{were} lost with the hub that ran before this one",
    Drop.LATE: 'for channels of the pattern "{pattern}" {were} not delivered, because the processes'
    " that read these took too long to come back after the former hub had ended",
    Drop.MOVED: 'for channels of the pattern "{pattern}" {were} dropped, because a WebSocket\'s '
    "new process did not join the group",
}


def _warn(reason: str, pattern: str, number: int) -> None:
    one = number == 1
    explanation = _EXPLANATIONS[reason].format(pattern=pattern, were="was" if one else "were")
    logger.warning("%d %s %s", number, "message" if one else "messages", explanation)


class Drops:
    """Counts, and warnings that name the pattern and never an instance's channel."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.total = 0
        self.reported: int | None = None  # of them, to the supervisor, if there is one
        self._told: dict[tuple[str, str], tuple[float, int]] = {}  # when, and the count then

    def add(self, reason: str, pattern: str, number: int = 1) -> None:
        """Count messages that were dropped."""
        if not number:
            return
        key = (reason, pattern)
        self.counts[key] += number
        self.total += number
        if reason not in _EXPLANATIONS:
            return
        now = time.monotonic()
        when, count = self._told.get(key, (now - _INTERVAL, 0))
        if now - when >= _INTERVAL:
            self._told[key] = (now, self.counts[key])
            _warn(reason, pattern, self.counts[key] - count)

    def restore(self, reason: str, pattern: str, count: int) -> None:
        """Continue with the count of another hub, which has told what was to be told."""
        self.counts[reason, pattern] = count
        if reason in _EXPLANATIONS:
            self._told[reason, pattern] = (time.monotonic() - _INTERVAL, count)

    def tell_rest(self) -> None:
        """Tell what was counted since the last warning, where it was long enough ago."""
        now = time.monotonic()
        for key, (when, count) in list(self._told.items()):
            if now - when >= _INTERVAL and self.counts[key] > count:
                self._told[key] = (now, self.counts[key])
                _warn(*key, self.counts[key] - count)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return the counts, by reason and then by pattern."""
        found: dict[str, dict[str, int]] = {}
        for (reason, pattern), count in self.counts.items():
            found.setdefault(reason, {})[pattern] = count
        return found
