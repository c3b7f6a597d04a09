"""A response that comes in parts, on its way to the client."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from chansup.relay import scopes
from chansup.relay.credits import REPORTED
from chansup.relay.frames import END, Kind, pack
from chansup.relay.interface.affinity import Session
from chansup.relay.interface.answers import answer
from chansup.relay.interface.headers import Scope
from chansup.relay.interface.worker import Worker
from chansup.relay.link import Link

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Event = tuple[int, int, int, bytes]  # kind, flags, number, payload


class BrokenResponseError(Exception):
    """A response that has begun cannot be completed: the server shall break the connection off."""


class Answered(Protocol):
    """The request, as its response sees it."""

    started: bool  # the client has seen a part of the response
    client_gone: bool

    @property
    def is_at_worker(self) -> bool:
        """Whether its worker is there, and the app has not returned."""


class Response:
    """What one worker answers, from its first event on."""

    __slots__ = (
        "_first", "_link", "_request", "_scope", "_send", "_session", "_stream", "_trailers_follow",
        "_unreported", "_worker",
    )  # fmt: skip

    def __init__(
        self,
        request: Answered,
        scope: Scope,
        send: Send,
        worker: Worker,
        stream: int,
        session: Session | None,
    ) -> None:
        """`session`: the session to learn from it."""
        assert worker.link is not None
        self._worker = worker
        self._link: Link = worker.link
        self._stream = stream
        self._session = session
        self._unreported = 0  # bytes that the client had
        self._request = request
        self._scope = scope
        self._send = send
        self._first: scopes.Head | None = None  # while the first of the body may tell a session
        self._trailers_follow = False

    async def pass_on(self, kind: int, payload: bytes) -> bool:
        """Pass an event of the app to the server. Say whether it was the last one."""
        if kind == Kind.START:
            await self._start(head_of(payload))
            return False
        if kind == Kind.EVENT:
            return await self._pass_event_on(payload)
        return await self._finish()

    async def _start(self, head: scopes.Head) -> None:
        if self._session is not None:
            self._session.learn_from(self._worker, head.status, head.headers, b"")
            self._first = head
        self._request.started = True
        self._trailers_follow = head.trailers
        start: Message = {
            "type": "http.response.start",
            "status": head.status,
            "headers": head.headers,
        }
        if head.trailers:
            start["trailers"] = True
        await self._send(start)

    async def pass_body_on(self, events: list[Event], flags: int, payload: bytes) -> bool:
        """Pass on what there is of the body, at once: this part, and those that `events` has."""
        body = payload
        if events and not flags & END:
            parts = [payload]
            while events and events[0][0] == Kind.BODY and not flags & END:
                _, flags, _, payload = events.pop(0)
                parts.append(payload)
            body = b"".join(parts)
            del parts, payload  # a slow client keeps one copy in memory, not two
        if self._first is not None and self._session is not None:
            first, self._first = self._first, None
            self._session.learn_from(self._worker, first.status, first.headers, body)
        is_last = bool(flags & END)
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})
        if not is_last or self._trailers_follow:
            self._report(len(body))
        return is_last and not self._trailers_follow

    def _report(self, size: int) -> None:
        """Give the worker credit for what the client had."""
        self._unreported += size
        if self._unreported >= REPORTED and self._request.is_at_worker:
            self._link.send_control(pack(Kind.CREDIT, 0, self._stream, self._unreported))
            self._unreported = 0

    async def _pass_event_on(self, payload: bytes) -> bool:
        try:
            event = scopes.decode_event(payload)
        except msgspec.DecodeError as error:
            raise BrokenResponseError(f"an event of the app: {error}") from None
        kind = event.get("type")
        if not isinstance(kind, str):
            raise BrokenResponseError("an event of the app has no type")
        if isinstance(headers := event.get("headers"), list):
            event["headers"] = [tuple(pair) for pair in headers]
        await self._send(event)
        self._report(len(payload))
        return kind == "http.response.trailers" and not event.get("more_trailers", False)

    async def _finish(self) -> bool:
        """Take notice that the app has returned before the response was complete."""
        if self._request.client_gone:
            return True
        if self._request.started:
            raise BrokenResponseError("the app ended before its response did")
        await answer(self._scope, self._send, 500, "Internal Server Error")
        return True


def head_of(payload: bytes) -> scopes.Head:
    """Return status and headers. Raises BrokenResponseError."""
    try:
        return scopes.decode_head(payload)
    except msgspec.DecodeError as error:
        raise BrokenResponseError(f"the app's status or headers: {error}") from None
