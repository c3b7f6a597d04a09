"""Asks the app for a page before its process counts as ready: `ready = "http:/health"`.

The request goes straight to the app, in the process that is to serve it, after the lifespan startup
and before the server listens. So no visitor meets a process that has not answered yet.
"""

import asyncio
import io
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Protocol

from chansup import tracebacks
from chansup.backoff import Backoff
from chansup.errors import ChansupError
from chansup.launch import frames
from chansup.protocol.launch import ReadyRequest
from chansup.text import visible

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NOT_YET = (429, 503)  # the app itself says that it needs more time
# Between two questions. The first pause is of 0.05 seconds.
_backoff = partial(Backoff, 0.05, 1.5, 1.0, jitter=0)
_SHOWN = 300  # characters of a plain text or JSON answer
_KEPT = 4096  # bytes of a body
_HOST_REFUSED = (400, 421)
_DEFAULT_HOST = "localhost"


class NotReadyError(ChansupError):
    """The app did not answer as one that is ready. `details` is the traceback, if there is one."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Asked(Protocol):
    """What decides whether a process may serve."""

    async def ask(self, state: MutableMapping[str, Any]) -> None:
        """Return when it may. `state`: of the lifespan. Raises NotReadyError."""


class WarmUp:
    """Stands around an ASGI app: its lifespan startup completes only when the app has answered.

    An app without lifespan is asked in its place. Every other scope goes straight to the app.
    """

    def __init__(self, application: Any, request: ReadyRequest) -> None:
        self._application = application
        self._request = request
        self._failure: NotReadyError | None = None

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Any:
        """Serve one scope."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        return self._application(scope, receive, send)

    async def ask(self, state: MutableMapping[str, Any]) -> None:
        """Ask until the app is ready. Raises NotReadyError, after it wrote the app's traceback."""
        try:
            await _ask_asgi(self._application, self._request, state)
        except NotReadyError as error:
            sys.stderr.write(error.details)
            raise

    async def _lifespan(self, scope: Any, receive: Receive, send: Send) -> None:
        answered = False  # the app said how its startup went

        async def watched_send(message: Message) -> None:
            nonlocal answered
            if message["type"] == "lifespan.startup.complete":
                answered = True
                if await self._fails(scope):
                    return  # and is told to shut down, so that it lets go of what it took
            elif message["type"] == "lifespan.startup.failed":
                answered = True
            elif self._failure is not None:
                return
            await send(message)

        async def watched_receive() -> Message:
            if self._failure is not None:
                return {"type": "lifespan.shutdown"}
            return await receive()

        try:
            await self._application(scope, watched_receive, watched_send)
        except Exception:
            if self._failure is None and (answered or not await self._fails(scope)):
                raise
        else:
            if not answered:
                await self._fails(scope)
        if self._failure is not None:
            await send({"type": "lifespan.startup.failed", "message": str(self._failure)})

    async def _fails(self, scope: Any) -> bool:
        try:
            await self.ask(scope.get("state", {}))
        except NotReadyError as error:
            self._failure = error
            return True
        return False


async def _ask_asgi(
    application: Any, request: ReadyRequest, state: MutableMapping[str, Any]
) -> None:
    answer = _Answer(request)
    try:
        async with asyncio.timeout(request.timeout):
            backoff = _backoff()
            while not answer.is_ready(await _asgi_status(application, request, state, answer)):
                pause = backoff.next_delay()
                await asyncio.sleep(pause)
    except TimeoutError:
        raise answer.too_late() from None


async def _asgi_status(
    application: Any,
    request: ReadyRequest,
    state: MutableMapping[str, Any],
    answer: "_Answer",
) -> int:
    """Ask once. Return the status as soon as the response is complete."""
    path, _, query = request.target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",  # else an app that redirects to https would answer nothing more
        "path": urllib.parse.unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [
            (b"host", answer.host.encode("idna" if not answer.host.isascii() else "ascii")),
            (b"user-agent", b"chansup"),
            (b"accept", b"*/*"),
        ],
        "client": ("127.0.0.1", 0),
        "server": (answer.host.partition(":")[0], 443),
        "extensions": {},
        "state": dict(state),
    }
    status = 0
    complete = asyncio.Event()
    asked = False
    answer.body.clear()

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            answer.headers = [(bytes(n).lower(), bytes(v)) for n, v in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")[: _KEPT - len(answer.body)]
            if not message.get("more_body", False):
                complete.set()

    task = asyncio.ensure_future(application(scope, receive, send))
    waiting = asyncio.create_task(complete.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if complete.is_set():
            _let_run(task)  # what it does after its response is its own affair
            return status
        task.result()
    except Exception as error:
        raise answer.raised(error) from error
    finally:
        waiting.cancel()
        if not complete.is_set():
            task.cancel()
    raise answer.failure("got no response: the app returned without one")


_running: set["asyncio.Future[Any]"] = set()


def _let_run(task: "asyncio.Future[Any]") -> None:
    _running.add(task)

    def ended(done: "asyncio.Future[Any]") -> None:
        _running.discard(done)
        if not done.cancelled():
            done.exception()  # after a complete response it says nothing about readiness

    task.add_done_callback(ended)


def prove_wsgi(application: Any, request: ReadyRequest | None) -> None:
    """Ask a WSGI app, in this thread, until it is ready. Raises NotReadyError."""
    if request is None:
        return
    try:
        _ask_wsgi(application, request)
    except NotReadyError as error:
        sys.stderr.write(error.details)
        raise


def _ask_wsgi(application: Any, request: ReadyRequest) -> None:
    answer = _Answer(request)
    until = time.monotonic() + request.timeout
    backoff = _backoff()
    while not answer.is_ready(_wsgi_status(application, request, answer)):
        pause = backoff.next_delay()
        if time.monotonic() + pause > until:
            raise answer.too_late()
        time.sleep(pause)


def _wsgi_status(application: Any, request: ReadyRequest, answer: "_Answer") -> int:
    path, _, query = request.target.partition("?")
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": answer.host.partition(":")[0],
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": answer.host,
        "HTTP_USER_AGENT": "chansup",
        "HTTP_ACCEPT": "*/*",
        "HTTPS": "on",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    started: list[str] = []
    answer.body.clear()

    def start_response(line: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        started.append(line)
        answer.headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
        return answer.body.extend

    try:
        body = application(environ, start_response)
        try:
            for part in body:
                answer.body += part[: _KEPT - len(answer.body)]
        finally:
            if (close := getattr(body, "close", None)) is not None:
                close()
        return int(started[-1][:3])
    except IndexError:
        raise answer.failure("got no response: the app returned without one") from None
    except Exception as error:
        raise answer.raised(error) from error


class _Answer:
    """What was asked, and what the app last said."""

    def __init__(self, request: ReadyRequest) -> None:
        self._request = request
        self.host = request.host or site_host()
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self._status = 0

    def is_ready(self, status: int) -> bool:
        """Say whether that is the status of an app that is ready; False: ask again.

        Raises NotReadyError for what asking again would not change.
        """
        self._status = status
        if 200 <= status < 400:
            return True
        if status in _NOT_YET:
            return False
        raise self.failure(f"was answered {status}{self._said()}{self._remedy()}")

    def too_late(self) -> NotReadyError:
        """Return the error of an app that took too long."""
        within = f"within {self._request.timeout:g} s"
        if self._status:
            return self.failure(f"was still answered {self._status} {within}{self._said()}")
        return self.failure(f"was not answered {within}")

    def raised(self, error: Exception) -> NotReadyError:
        """Return the error of an app that raised one."""
        place = frames.place(error, sys.path[0])
        failure = self.failure(f"failed{place}: {tracebacks.last_line(error)}")
        failure.details = tracebacks.trimmed(error, frames.are_on_the_way)
        return failure

    def failure(self, what: str) -> NotReadyError:
        """Return an error about this request."""
        return NotReadyError(f'GET {self._request.target} (Host "{self.host}") {what}')

    def _said(self) -> str:
        kind = dict(self.headers).get(b"content-type", b"").partition(b";")[0].strip()
        if kind not in (b"text/plain", b"application/json"):
            return ""
        text = " ".join(self.body.decode("utf-8", "replace").split())[:_SHOWN]
        return f": {visible(text)}" if text else ""

    def _remedy(self) -> str:
        if self._status in _HOST_REFUSED:
            target = self._request.target
            return f'. If the app does not accept that host, write ready = "http://HOST{target}"'
        return ". The path must exist, and need no login" if self._status in (401, 403, 404) else ""


def site_host() -> str:
    """Return a host that the app accepts: the first plain one of Django's ALLOWED_HOSTS."""
    registry = sys.modules.get("django.apps")
    if registry is None or not registry.apps.ready:
        return _DEFAULT_HOST
    from django.conf import settings

    for host in settings.ALLOWED_HOSTS:
        if isinstance(host, str) and host.strip(".") and "*" not in host:
            return host.removeprefix(".")
    return _DEFAULT_HOST
