"""Log lines that nobody else can forge: what a client names stands in them, but never breaks one.

A client chooses paths, headers, methods, hosts, close reasons and more. A newline in any of them
would begin a line of its own, which looks like any other.
"""

import logging
import traceback

from chansup.text import visible, visible_lines

LINES = "lines"  # attribute of a record: text of several lines that follows the message
_BEGINNINGS = (" ", "Traceback (most recent call last):", "\nDuring ", "\nThe above ")


def traceback_of(error: BaseException) -> str:
    """Return the traceback of `error`; further lines of its message are indented, as a part of it.

    The message may quote what a client has sent.
    """
    return indented(traceback.TracebackException.from_exception(error))


def indented(summary: traceback.TracebackException) -> str:
    """Return a traceback whose lines at the left margin are its own."""
    chunks = []
    for chunk in summary.format():
        if not chunk.startswith(_BEGINNINGS):  # what the exception says
            chunk = chunk.rstrip("\n").replace("\n", "\n    ") + "\n"
        chunks.append(visible_lines(chunk))
    return "".join(chunks).rstrip("\n")


class OneLine(logging.Filter):
    """Puts the message of each record on one line. For loggers: every handler gets it so.

    What has several lines by its nature comes as ``extra={LINES: …}``, and follows.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change `record`; it is kept in any case."""
        message = visible(record.getMessage())
        lines = getattr(record, LINES, "")
        record.msg = f"{message}\n{lines}" if lines else message
        record.args = ()
        return True


class OneLineFormatter(logging.Formatter):
    """Puts the message on one line; a traceback follows as always. For loggers of others."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line."""
        return visible(super().formatMessage(record))


def keep_on_one_line(logger: str) -> None:
    """Have every message of a logger on one line."""
    logging.getLogger(logger).addFilter(_FILTER)


_FILTER = OneLine()
