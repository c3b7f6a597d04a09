"""What a link has asked the hub, and has no answer to.

When a connection is lost the next hub, or the same one, says how many of its requests were carried
out. The others are sent again: so each message is sent once. Where nobody knows, messages are not
sent again, and whoever sent them hears of it; everything else does no harm when it is done twice.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from chansup.layer.errors import HubError, HubLost, HubUnavailable
from chansup.layer.frames import Kind, Reason
from chansup.layer.greetings import Welcome

_MESSAGES = (Kind.SEND, Kind.GROUP_SEND)
_KNOWN = 64  # requests, the last ones, of which the hub knows whether they were refused
_KIND = 4  # place of a frame's kind in it

GONE = "the hub went away before it answered"
_NOBODY_KNOWS = f"{GONE}: whether the message was sent is not known"


class RefusedError(Exception):
    """The hub refused a request."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def is_full(self) -> bool:
        """Whether a channel was full."""
        return self.reason == Reason.FULL

    def as_hub_error(self) -> HubError:
        """Return the exception for a refusal other than a full channel."""
        return HubError(f"the hub refused: {self}")


class Request:
    """One request; `answer` is None where nobody waits for it."""

    __slots__ = ("answer", "frame", "since")

    def __init__(
        self, frame: bytes, since: float, answer: "asyncio.Future[bytes] | None" = None
    ) -> None:
        self.frame = frame
        self.since = since
        self.answer = answer

    @property
    def is_awaited(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self.answer is not None and not self.answer.done()

    @property
    def is_message(self) -> bool:
        """Whether it must not be done twice."""
        return self.frame[_KIND] in _MESSAGES

    def succeed(self, answer: bytes = b"") -> None:
        """Give the answer to whoever waits for it."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Let whoever waits for it know that there is none."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class Requests:
    """The requests of one link, in their order."""

    def __init__(self) -> None:
        self._sent: deque[Request] = deque()
        self._answered = 0  # by this connection
        self._unsure: list[tuple[int, Request]] = []  # of the former one: and their numbers

    def add(self, request: Request) -> None:
        """Take notice that a request is on its way."""
        self._sent.append(request)

    def answered(self) -> Request:
        """Return the request that was answered now."""
        self._answered += 1
        return self._sent.popleft()

    def oldest(self) -> float | None:
        """Return since when somebody has waited longest for the hub that is connected."""
        return next((one.since for one in self._sent if one.is_awaited), None)

    def oldest_unsure(self) -> float | None:
        """Return the same of those that wait for the next hub."""
        return min((one.since for _, one in self._unsure if one.is_awaited), default=None)

    def lose(self, why: str) -> None:
        """Take notice that the connection is lost."""
        for number, request in enumerate(self._sent, self._answered + 1):
            if request.frame[_KIND] == Kind.FLUSH:
                request.fail(HubLost(why))
            elif request.is_awaited:
                self._unsure.append((number, request))
        self._sent.clear()
        self._answered = 0

    def settle(self, welcome: Welcome, now: float) -> list[Request]:
        """Settle what a hub knows to be done, and return what it is to be asked again."""
        unsure, self._unsure = self._unsure, []
        again = []
        for number, request in unsure:
            if not request.is_awaited:
                continue
            if request.is_message and welcome.done is None:
                request.fail(HubLost(_NOBODY_KNOWS))
            elif request.is_message and welcome.done is not None and number <= welcome.done:
                _settle(request, welcome.done - number, welcome.refused)
            else:
                request.since = now
                again.append(request)
        return again

    def fail_overdue(self, before: float, why: str) -> None:
        """Give up what has waited for another hub since `before`, or longer."""
        kept = []
        for number, request in self._unsure:
            if request.since > before:
                kept.append((number, request))
            elif request.is_message:
                request.fail(HubLost(f"{why}: whether the message was sent is not known"))
            else:
                request.fail(HubUnavailable(why))
        self._unsure = kept

    def fail_all(self, error: Exception) -> None:
        """Give up everything."""
        _fail(self._sent, error)
        _fail((one for _, one in self._unsure), error)
        self.clear()

    def clear(self) -> None:
        """Forget everything: nobody can wait any more."""
        self._sent.clear()
        self._unsure.clear()


def _settle(request: Request, ago: int, refused: int) -> None:
    """Tell what became of a message that a former hub has dealt with."""
    if ago >= _KNOWN:
        request.fail(HubLost(_NOBODY_KNOWS))
    elif refused >> ago & 1:
        request.fail(RefusedError(Reason.FULL, "full"))
    else:
        request.succeed()


def _fail(requests: Iterable[Request], error: Exception) -> None:
    for request in requests:
        request.fail(error)
