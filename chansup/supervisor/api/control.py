"""The control socket: commands for the supervisor over HTTP, progress back as lines of JSON.

========================================  =====================================================
``GET /version``                          version and pid
``GET /status``                           a `Status`
``GET /consumption``                      a `Consumption`
``GET /logs?target=&lines=&follow=1``     a `LogLine` per line
``POST /reload``                          an `Event` per line, the last of type "result"
``POST /restart?target=``                 the same
``POST /scale?pool=&processes=``          the same
``POST /move?mark=``                      the same
``POST /stop``                            the same
========================================  =====================================================

With ``wait=0`` a command answers with its first event alone. A failure is a 4xx with
``{"error": message, "exit_code": …}``.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import parse_qsl

from chansup import __version__
from chansup.background import BackgroundTasks
from chansup.errors import ChansupError, ExitCode
from chansup.protocol import encoding
from chansup.protocol.status import Consumption, Event, LogLine, Status
from chansup.supervisor.api.exchange import Receive, Scope, Send, respond
from chansup.supervisor.errors import StartFailedError, UnknownTargetError

BUFFERED_LINES = 1000  # for one reader; the oldest are left out when it is slower than they come
DEFAULT_LOG_LINES = 100
NDJSON = b"application/x-ndjson"

logger = logging.getLogger(__name__)

Parameters = dict[str, str]


class Commands(Protocol):
    """The supervisor, as seen by the control socket.

    The commands that take time return a stream of events that ends with one of type "result".
    Closing the stream does not stop what was begun.
    """

    def status(self) -> Status:
        """Return the present state; never blocks."""

    def consumption(self) -> Consumption:
        """Return what channel workers and the hub counted; never blocks.

        The document is the caller's own.
        """

    def reload(self) -> AsyncIterator[Event]:
        """Roll a new generation out."""

    def restart(self, target: str | None) -> AsyncIterator[Event]:
        """Replace the processes of a pool, of a slot, or all, with their own generation.

        All does not mean programs that are kept, nor an interface that relays.
        """

    def scale(self, pool: str, processes: int) -> AsyncIterator[Event]:
        """Change the number of slots of a pool until the next change of the config."""

    def move(self, mark: str) -> AsyncIterator[Event]:
        """Move the one WebSocket whose handshake has this mark to another worker.

        The result has what came of it as its `step`. Raises ChansupError.
        """

    def stop(self) -> AsyncIterator[Event]:
        """Stop everything; the result comes when only the supervisor itself is left."""

    def logs(self, target: str | None, lines: int) -> list[LogLine]:
        """Return the last lines of a pool, a slot or all. Raises UnknownTargetError."""

    def follow(self, target: str | None) -> AsyncIterable[LogLine]:
        """Return lines as they come; a slow reader misses some. Raises UnknownTargetError."""


class BadRequestError(ChansupError):
    """A request that the CLI would not send."""

    exit_code = ExitCode.USAGE


class Buffer:
    """Encoded lines on their way to one reader: bounded, so that no reader holds anybody up."""

    def __init__(self) -> None:
        self.missed = 0  # lines left out because the reader was too slow
        self._lines: deque[bytes] = deque(maxlen=BUFFERED_LINES)
        self._wake = asyncio.Event()
        self._closed = False

    def add(self, line: bytes) -> None:
        """Add a line, in place of the oldest if there is no room; ignored after `close`."""
        if self._closed:
            return
        if len(self._lines) == BUFFERED_LINES:
            self.missed += 1
        self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """Let the reader end after the present items."""
        self._closed = True
        self._wake.set()

    async def take(self) -> bytes:
        """Return all lines there are, waiting for the first; b"" at the end."""
        while not self._lines and not self._closed:
            self._wake.clear()
            await self._wake.wait()
        taken = b"".join(self._lines)
        self._lines.clear()
        return taken


class Control:
    """The ASGI application of the control socket."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._running = BackgroundTasks()
        self._routes: dict[tuple[str, str], Callable[[Parameters], AsyncIterator[Event]]] = {
            ("POST", "/reload"): lambda _: commands.reload(),
            ("POST", "/restart"): lambda given: commands.restart(given.get("target") or None),
            ("POST", "/scale"): self._scale,
            ("POST", "/move"): lambda given: commands.move(given.get("mark", "")),
            ("POST", "/stop"): lambda _: commands.stop(),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parameters = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        route = scope["method"], scope["path"]
        try:
            if route == ("GET", "/status"):
                await respond(send, 200, encoding.encode_for_others(self._commands.status()))
            elif route == ("GET", "/consumption"):
                await respond(send, 200, encoding.encode_for_others(self._commands.consumption()))
            elif route == ("GET", "/version"):
                version = {"version": __version__, "pid": os.getpid()}
                await respond(send, 200, encoding.encode_for_others(version))
            elif route == ("GET", "/logs"):
                await self._logs(parameters, scope["state"]["stopping"], receive, send)
            elif route in self._routes:
                await self._run(self._routes[route], parameters, receive, send)
            elif any(path == scope["path"] for _, path in self._routes):
                await respond(send, 405, _failure("Use POST.", ExitCode.USAGE))
            else:
                message = f"This supervisor ({__version__}) has no command {scope['path']}."
                await respond(send, 404, _failure(message, ExitCode.USAGE))
        except BadRequestError as error:
            await respond(send, 400, _failure(str(error), error.exit_code))
        except UnknownTargetError as error:
            await respond(send, 404, _failure(str(error), error.exit_code))
        except ChansupError as error:
            lines = error.lines if isinstance(error, StartFailedError) else []
            await respond(send, 409, _failure(str(error), error.exit_code, lines))

    async def _run(
        self,
        start: Callable[[Parameters], AsyncIterator[Event]],
        parameters: Parameters,
        receive: Receive,
        send: Send,
    ) -> None:
        events = start(parameters)
        try:
            first = await anext(events)  # here at the latest a command says that it cannot be done
        except StopAsyncIteration:
            first = _failed("The command ended without a result.")
        buffer = Buffer()
        buffer.add(_line(first))
        # The command continues when its reader has left, so its events are read to the end.
        self._running.start(_read_events(events, buffer))
        if parameters.get("wait") == "0":
            await respond(send, 202, _line(first), NDJSON)
            buffer.close()
        else:
            await _stream(buffer, send, until=_gone(receive))

    async def _logs(
        self, parameters: Parameters, stopping: asyncio.Event, receive: Receive, send: Send
    ) -> None:
        target = parameters.get("target") or None
        lines = _number(parameters, "lines", DEFAULT_LOG_LINES)
        past = _past(self._commands, target, lines)
        if parameters.get("follow") != "1":
            await respond(send, 200, past, NDJSON)
            return
        buffer = Buffer()
        reader = self._running.start(_read_log(self._commands, target, lines, buffer))
        try:
            await _stream(buffer, send, until=_gone(receive, stopping))
        finally:
            reader.cancel()

    def _scale(self, parameters: Parameters) -> AsyncIterator[Event]:
        pool = parameters.get("pool")
        if not pool or "processes" not in parameters:
            raise BadRequestError("scale needs a pool and a number of processes.")
        return self._commands.scale(pool, _number(parameters, "processes", 0))


async def _read_events(events: AsyncIterator[Event], buffer: Buffer) -> None:
    try:
        async for event in events:
            buffer.add(_line(event))
    except ChansupError as error:
        buffer.add(_line(_failed(str(error), error.exit_code)))
    except Exception:
        logger.exception("A command ended with an error of chansup itself")
        buffer.add(_line(_failed("chansup itself made an error; its log has the traceback.")))
    finally:
        buffer.close()


async def _read_log(commands: Commands, target: str | None, lines: int, buffer: Buffer) -> None:
    # No await between the past and the subscription: no line is missed, none comes twice.
    try:
        new = commands.follow(target)
        if past := _past(commands, target, lines):
            buffer.add(past)
        async for line in new:
            buffer.add(_line(line))
            if buffer.missed:
                text = f"{buffer.missed} lines left out: this reader is too slow"
                buffer.missed = 0
                buffer.add(_line(LogLine(time.time(), "chansup", os.getpid(), text)))
    finally:
        buffer.close()


def _past(commands: Commands, target: str | None, lines: int) -> bytes:
    past = commands.logs(target, max(lines, 1))  # asked even for none: the target may not exist
    return b"".join(map(_line, past[-lines:])) if lines else b""


async def _stream(buffer: Buffer, send: Send, until: Coroutine[Any, Any, None]) -> None:
    """Send what comes into the buffer, up to its end or that of `until`."""
    watcher = asyncio.create_task(until)
    watcher.add_done_callback(lambda _: buffer.close())
    try:
        headers = [(b"content-type", NDJSON)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while chunk := await buffer.take():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        watcher.cancel()


async def _gone(receive: Receive, stopping: asyncio.Event | None = None) -> None:
    """Return when the reader has closed its connection, or `stopping` is set."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waits = {asyncio.create_task(disconnected())}
    if stopping is not None:
        waits.add(asyncio.create_task(stopping.wait()))  # type: ignore[arg-type]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _number(parameters: Parameters, name: str, default: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequestError(f"{name} must be a number, 0 or more, not {text!r}.")
    return int(text)


def _line(document: Event | LogLine) -> bytes:
    return encoding.encode_for_others(document) + b"\n"


def _failed(message: str, exit_code: ExitCode = ExitCode.FAILED) -> Event:
    return Event("result", message, outcome="failed", exit_code=exit_code)


def _failure(message: str, exit_code: ExitCode, lines: list[str] | None = None) -> bytes:
    return encoding.encode_for_others(
        {"error": message, "exit_code": exit_code, "lines": lines or []}
    )
