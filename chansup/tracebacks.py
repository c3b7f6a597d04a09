"""Tracebacks as the developer of the app wants to read them: without the ways that lead there."""

import traceback
from collections.abc import Callable

from chansup.log_lines import indented


def trimmed(error: BaseException, is_on_the_way: Callable[[str], bool]) -> str:
    """Return the traceback of `error` and of what led to it, without some frames.

    `is_on_the_way` takes a file name and says whether its frames are left out.
    """
    summary = traceback.TracebackException.from_exception(error)
    _trim(summary, is_on_the_way)
    return indented(summary) + "\n"


def last_line(error: BaseException) -> str:
    """Return what kind of error it is, and what it says."""
    return traceback.format_exception_only(error)[-1].strip()


def _trim(summary: traceback.TracebackException, is_on_the_way: Callable[[str], bool]) -> None:
    for linked in (summary.__cause__, summary.__context__):
        if linked is not None:
            _trim(linked, is_on_the_way)
    kept = [frame for frame in summary.stack if not is_on_the_way(frame.filename)]
    summary.stack = traceback.StackSummary.from_list(kept)
