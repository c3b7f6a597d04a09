"""What the app raised, as its developer wants to read it."""

import os
import traceback

import chansup

_OURS = os.path.dirname(os.path.abspath(chansup.__file__)) + os.sep
_WAYS = (  # through which a call of a consumer goes
    "/site-packages/channels/",
    "/site-packages/asgiref/",
    "/asyncio/",
    "/concurrent/futures/",
)


def of_the_app(error: BaseException) -> str:
    """Return the traceback of `error`, without the frames between us and the app."""
    summary = traceback.TracebackException.from_exception(error)
    _trim(summary)
    return "".join(summary.format()).rstrip("\n")


def last_line(error: BaseException) -> str:
    """Return what kind of error it is, and what it says."""
    return traceback.format_exception_only(error)[-1].strip()


def _trim(summary: traceback.TracebackException) -> None:
    for linked in (summary.__cause__, summary.__context__):
        if linked is not None:
            _trim(linked)
    kept = [
        frame
        for frame in summary.stack
        if not frame.filename.startswith(_OURS) and not any(way in frame.filename for way in _WAYS)
    ]
    summary.stack = traceback.StackSummary.from_list(kept)
