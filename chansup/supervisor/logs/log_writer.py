"""The log on stdout, written by a thread: the loop never blocks."""

import os
import select
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from chansup.protocol.encoding import spell_out
from chansup.supervisor.logs.levels import LEVELS, Level
from chansup.supervisor.logs.line_reader import CHUNK
from chansup.supervisor.logs.log_batch import Batch
from chansup.supervisor.logs.log_format import Format, Formatter, resolve
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.supervisor.logs.subscription import SUBSCRIPTION, Subscription, number_of_lines
from chansup.supervisor.logs.traceback_joiner import TracebackJoiner
from chansup.text import OWN_SLOT, visible_but_colours

QUEUE = 4 * 1024 * 1024  # characters that may wait for a slow stdout


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

    def write(
        self,
        slot: str,
        pid: int,
        lines: Sequence[str],
        now: float | None = None,
        continues: bool = False,
    ) -> None:
        """Queue the lines that process `pid` of `slot` printed; never blocks.

        `continues` says that the first was begun together with the lines before.
        """
        self._put(slot, pid, lines, time.time() if now is None else now, None, continues)

    def say(self, message: str, level: str = "info") -> None:
        """Queue a message of chansup's own, if its level is to be shown; never blocks."""
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        clean = spell_out(message)
        lines = visible_but_colours(clean.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
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
        self,
        slot: str,
        pid: int,
        lines: Sequence[str],
        now: float,
        level: str | None,
        continues: bool = False,
    ) -> None:
        batch = Batch(now, slot, pid, level, "\n".join(lines), len(lines), continues)
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
        message = f"{number_of_lines(count)} dropped here: stdout was blocked or failed"
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
