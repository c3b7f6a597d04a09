"""What a consumer raised, as its developer wants to read it."""

import os

import chansup
from chansup import tracebacks

_OURS = os.path.dirname(os.path.abspath(chansup.__file__)) + os.sep
_WAYS = (  # through which a call of a consumer goes
    "/site-packages/channels/",
    "/site-packages/asgiref/",
    "/asyncio/",
    "/concurrent/futures/",
)


def of_the_app(error: BaseException) -> str:
    """Return the traceback of `error`, without the frames between us and the app."""
    return tracebacks.trimmed(error, _is_on_the_way).rstrip("\n")


def _is_on_the_way(file: str) -> bool:
    return file.startswith(_OURS) or any(way in file for way in _WAYS)
