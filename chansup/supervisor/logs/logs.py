"""What children print: read, kept for a while, and written to stdout; the loop never blocks.

A line is what ends with LF, CR LF or CR, so no line can pass for several, nor overwrite the slot it
came from. Control characters are shown escaped; tabs and colours (SGR sequences, ECMA-48) pass.
"""

import asyncio
import os
import re
import select
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from chansup.protocol.status import LogLine
from chansup.supervisor.logs.log_batch import Batch
from chansup.supervisor.logs.log_format import Format, Formatter, resolve
from chansup.supervisor.logs.traceback_joiner import TracebackJoiner
from chansup.text import OWN_SLOT

CHUNK = 64 * 1024  # bytes read from one child before the others get their turn
PAUSE = 0.01  # seconds that a child which floods waits while the queue for stdout is crowded
MAX_LINE = 16 * 1024  # characters; longer lines are split
QUEUE = 4 * 1024 * 1024  # characters that may wait for a slow stdout
RECENT_SIZE = 128 * 1024  # characters kept per slot, however many lines that are
SUBSCRIPTION = 2_000  # lines that may wait for a slow reader

Level = Literal["debug", "info", "warning", "error"]
_LAST_CHUNKS = 16  # a pipe can be made to hold 1 MiB, fcntl(2)
_LEVELS = ("debug", "info", "warning", "error")
_PLAIN = bytes(byte for byte in range(256) if byte in (9, 10) or (byte >= 32 and byte != 127))
_COLOUR_OR_CONTROL = re.compile(
    "(\x1b\\[[0-9;:]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]"  # the last two end lines, too
)


def _escape(match: "re.Match[str]") -> str:
    if match[1]:
        return match[1]
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def escape(text: str) -> str:
    """Return `text` with every control character but LF, tab and colours made visible."""
    return _COLOUR_OR_CONTROL.sub(_escape, text)


class LineReader:
    """Reads the output of one child from a non-blocking pipe, on the loop."""

    def __init__(
        self,
        descriptor: int,
        on_lines: Callable[[list[str]], None],
        on_end: Callable[[], None] = lambda: None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take over `descriptor`; `on_end` is called when the last writer has closed the pipe.

        While `crowded` (`LogWriter.crowded`), a child that floods is slowed down.
        """
        self._descriptor = descriptor
        self._on_lines = on_lines
        self._on_end = on_end
        self._crowded = crowded
        self._resume: asyncio.TimerHandle | None = None
        self._taken = 0  # bytes since the last pause, while stdout is slow
        self._rest = b""  # of a line that has not ended yet
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read from now on."""
        self._loop = loop
        self._resume = None
        loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Take the present content of the pipe, and read no more. Harmless after the end."""
        self.catch_up()
        self._end()

    def catch_up(self) -> None:
        """Take the present content of the pipe."""
        for _ in range(_LAST_CHUNKS):  # whoever still holds the other end may never stop writing
            if self._descriptor < 0 or not self._read():
                break

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            chunk = os.read(self._descriptor, CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # EIO of a pseudo-terminal whose other end is closed
            chunk = b""
        if not chunk:
            self._end()
            return False
        self._split(chunk)
        self._taken = self._taken + len(chunk) if self._crowded() else 0
        if self._taken > CHUNK and self._loop is not None:
            # Lets stdout catch up. Bounded, because a stuck stdout must not hold up any child.
            self._taken = 0
            self._stop_reading()
            self._resume = self._loop.call_later(PAUSE, self.start, self._loop)
        return True

    def _split(self, chunk: bytes) -> None:
        content = self._rest + chunk
        self._rest = b""
        if b"\r" in content:
            held = b"\r" if content.endswith(b"\r") else b""  # LF may follow
            content = content[: len(content) - len(held)].replace(b"\r\n", b"\n")
            content = content.replace(b"\r", b"\n")
        else:
            held = b""
        end = content.rfind(b"\n") + 1
        rest = content[end:]
        lines = _decode(content[: end - 1]).split("\n") if end else []
        if lines and len(content) > MAX_LINE and max(map(len, lines)) > MAX_LINE:
            lines = [part for line in lines for part in _parts(line)]
        while len(rest) > MAX_LINE:
            cut = _character_boundary(rest, MAX_LINE)
            lines.append(_decode(rest[:cut]))
            rest = rest[cut:]
        self._rest = rest + held
        if lines:
            self._on_lines(lines)

    def _end(self) -> None:
        if self._descriptor < 0:
            return
        self._stop_reading()
        os.close(self._descriptor)
        self._descriptor = -1
        rest = self._rest.removesuffix(b"\r")
        self._rest = b""
        if rest:
            self._on_lines([_decode(rest)])
        self._on_end()

    def _stop_reading(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        elif self._loop is not None:
            self._loop.remove_reader(self._descriptor)


def _decode(content: bytes) -> str:
    text = content.decode(errors="replace")
    if content.isascii() and not content.translate(None, _PLAIN):
        return text  # almost every line, at the speed of memory
    return escape(text)


def _parts(line: str) -> list[str]:
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)] or [line]


def _character_boundary(content: bytes, cut: int) -> int:
    """Return the place at or shortly before `cut` where no UTF-8 character is torn."""
    for place in range(cut, cut - 4, -1):
        if content[place] & 0xC0 != 0x80:
            return place
    return cut


class RecentLines:
    """The last lines of one slot, bounded by their number and by their size in characters."""

    def __init__(self, lines: int = 200, size: int = RECENT_SIZE) -> None:
        self._lines: deque[LogLine] = deque()
        self._most = lines
        self._limit = size
        self._size = 0

    def append(self, slot: str, pid: int, lines: Sequence[str], now: float | None = None) -> None:
        """Keep the end of `lines`, which process `pid` printed at the Unix time `now`."""
        now = time.time() if now is None else now
        kept = self._lines
        for text in lines[-self._most :]:
            kept.append(LogLine(now, slot, pid, text))
            self._size += len(text)
        while len(kept) > self._most or (self._size > self._limit and len(kept) > 1):
            self._size -= len(kept.popleft().text)

    def resize(self, lines: int) -> None:
        """Keep so many lines from the next one on."""
        self._most = lines

    def tail(self, count: int, pid: int | None = None) -> list[LogLine]:
        """Return the last `count` lines, of one process or of all, oldest first."""
        if count <= 0:
            return []
        lines = [line for line in self._lines if pid is None or line.pid == pid]
        return lines[-count:]


class Subscription:
    """Lines as they come, for one reader: iterate over it with ``async for``.

    It ends with `aclose`, with the log, or when nobody holds it any more.
    """

    def __init__(self, wanted: Callable[[str], bool] | None, limit: int) -> None:
        self.missed = 0  # lines that came while `limit` lines waited
        self._wanted = wanted
        self._limit = limit
        self._waiting: deque[LogLine] = deque()
        self._unreported = 0
        self._news = asyncio.Event()
        self._closed = False

    def publish(self, slot: str, pid: int, lines: Sequence[str], now: float) -> None:
        """Take lines, as far as there is room."""
        if self._closed or (self._wanted is not None and not self._wanted(slot)):
            return
        room = max(self._limit - len(self._waiting), 0)
        if room and self._unreported:
            notice = f"{_lines(self._unreported)} left out here: this reader is too slow"
            self._waiting.append(LogLine(now, OWN_SLOT, os.getpid(), notice))
            self._unreported = 0
        self._waiting.extend(LogLine(now, slot, pid, text) for text in lines[:room])
        lost = max(len(lines) - room, 0)
        self.missed += lost
        self._unreported += lost
        self._news.set()

    def close(self) -> None:
        """Take no more; the iteration stops after the lines that wait."""
        self._closed = True
        self._news.set()

    async def aclose(self) -> None:
        """Take no more, as an asynchronous generator would."""
        self._waiting.clear()
        self.close()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> LogLine:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class LogWriter:
    """Writes to stdout from a thread of its own.

    The queue is bounded; what finds no room, or fails to be written, is counted, and a line says so
    as soon as stdout takes lines again.
    """

    def __init__(
        self,
        descriptor: int = 1,
        format: Format | Literal["auto"] = "auto",
        level: Level = "info",
        queue: int = QUEUE,
    ) -> None:
        """Write to `descriptor`; `level` is the least of chansup's own messages to be shown."""
        self.format: Format = resolve(format, descriptor)
        self.level: Level = level
        self.own = RecentLines()  # chansup's own messages
        self._descriptor = descriptor
        self._limit = queue
        self._formatter = Formatter(self.format, colours="NO_COLOR" not in os.environ)
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._changed = threading.Condition()
        # Below: shared with the thread, under the condition's lock.
        self._queue: deque[Batch] = deque()
        self._waiting = 0  # characters in the queue and in the writer's hands
        self._dropped = 0
        self._unreported = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """How many lines were lost so far, because stdout took none."""
        return self._dropped

    def crowded(self) -> bool:
        """Whether more than a quarter of the queue is taken."""
        return self._waiting * 4 > self._limit

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def configure(self, format: Format | Literal["auto"], level: Level) -> None:
        """Change format and level from the next line on."""
        self.level = level
        wanted = resolve(format, self._descriptor)
        if wanted != self.format:
            self.format = wanted
            self._formatter = Formatter(wanted, colours="NO_COLOR" not in os.environ)

    def write(self, slot: str, pid: int, lines: Sequence[str], now: float | None = None) -> None:
        """Queue the lines that process `pid` of `slot` printed; never blocks."""
        self._put(slot, pid, lines, time.time() if now is None else now, None)

    def say(self, message: str, level: str = "info") -> None:
        """Queue a message of chansup's own, if its level is to be shown; never blocks."""
        if _LEVELS.index(level) < _LEVELS.index(self.level):
            return
        clean = message.encode(errors="backslashreplace").decode()
        lines = escape(clean.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        now, pid = time.time(), os.getpid()
        self._put(OWN_SLOT, pid, lines, now, level)
        self.own.append(OWN_SLOT, pid, lines, now)

    def follow(
        self, wanted: Callable[[str], bool] | None = None, limit: int = SUBSCRIPTION
    ) -> Subscription:
        """Return the lines of the slots that are `wanted` (of all by default), from now on.

        At most `limit` lines wait for a slow reader.
        """
        subscription = Subscription(wanted, limit)
        self._subscriptions.add(subscription)
        return subscription

    def close(self, timeout: float = 2.0) -> bool:
        """Write what waits and end the thread; False if stdout was too slow for `timeout` seconds.

        Blocks: for when the loop has ended.
        """
        for subscription in list(self._subscriptions):
            subscription.close()
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _put(
        self, slot: str, pid: int, lines: Sequence[str], now: float, level: str | None
    ) -> None:
        batch = Batch(now, slot, pid, level, "\n".join(lines), len(lines))
        cost = _cost(batch)
        with self._changed:
            if self._waiting + cost > self._limit:
                self._drop(batch.lines)
            else:
                if self._unreported:
                    self._enqueue(self._report(now))
                self._enqueue(batch)
        for subscription in self._subscriptions:
            subscription.publish(slot, pid, lines, now)

    def _enqueue(self, batch: Batch) -> None:
        self._queue.append(batch)
        self._waiting += _cost(batch)
        self._changed.notify()

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        self._unreported += lines

    def _report(self, now: float) -> Batch:
        count, self._unreported = self._unreported, 0
        message = f"{_lines(count)} dropped here: stdout was blocked or failed"
        return Batch(now, OWN_SLOT, os.getpid(), "warning", message, 1)

    # In the thread

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the loop's, not ours
        joiner = TracebackJoiner()
        torn = False  # whether the last write ended within a line
        ends = False
        while not ends:
            batches = self._take(joiner.patience)
            ends = batches is None
            failed = 0
            for batch in self._joined(joiner, batches):
                content = self._formatter.format(batch)
                if torn:
                    content = b"\n" + content
                written = _write(self._descriptor, content)
                if written == len(content):
                    torn = False
                else:
                    failed += content.count(b"\n", written)
                    torn = content[written - 1 : written] != b"\n" if written else torn
            with self._changed:
                self._waiting -= sum(map(_cost, batches or ()))
                self._drop(failed)
                if self._unreported and not failed and not self._queue:
                    self._enqueue(self._report(time.time()))

    def _joined(self, joiner: TracebackJoiner, batches: list[Batch] | None) -> Iterator[Batch]:
        """Give the lines to write now: in JSON, tracebacks in one piece."""
        if batches is None or self.format != "json":
            yield from joiner.all()
            yield from batches or ()
            return
        for batch in batches:
            yield from joiner.add(batch)
        yield from joiner.complete()

    def _take(self, patience: float | None) -> list[Batch] | None:
        """Return what waits, as soon as there is something; None at the end.

        Returns an empty list after `patience` seconds without anything.
        """
        with self._changed:
            while not self._queue and not self._closing:
                if not self._changed.wait(patience):
                    return []
            batches = list(self._queue)
            self._queue.clear()
            return batches or None


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _cost(batch: Batch) -> int:
    return len(batch.text) + 200


def _write(descriptor: int, content: bytes) -> int:
    """Write as much as stdout takes; return how many bytes that were. Blocks, never raises."""
    view = memoryview(content)
    done = 0
    while done < len(content):
        try:
            done += os.write(descriptor, view[done : done + CHUNK])
        except BlockingIOError:  # somebody else made it non-blocking, a terminal's other user say
            select.select([], [descriptor], [])
        except InterruptedError:
            continue
        except OSError:  # EPIPE, ENOSPC, EIO, EBADF: counted by the caller
            return done
    return done
