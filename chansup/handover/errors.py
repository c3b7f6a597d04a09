"""What the app is told by an exception, and what it tells by one."""

import asyncio

from chansup.errors import ChansupError


class ClientDisconnected(OSError):
    """The client is gone: what the app sends goes nowhere.

    ASGI 2.4, "Disconnected Client". Also what a task is told that outlives its app.
    """

    def __init__(self) -> None:
        super().__init__("the client is gone")


class UnexpectedEvent(ChansupError, RuntimeError):
    """The app sent an event that may not come now, or not at all."""


# What frameworks raise through the app when the client is gone, by names: none is imported here.
_CLIENT_LEFT = frozenset(
    {
        "ClientDisconnect",  # Starlette, FastAPI
        "ClientDisconnected",  # Werkzeug
        "ClientDisconnectError",
        "RequestAborted",  # Django
        "WebSocketDisconnect",  # Starlette, FastAPI, Litestar
        "WebSocketDisconnected",  # Falcon
    }
)


def says_that_client_left(error: BaseException) -> bool:
    """Whether an app that raised `error` only says that the client, who is gone, is gone.

    What was raised on purpose from such an error counts, too; what only happened in the midst of
    dealing with one is a defect of the app. A group counts if all in it do.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(says_that_client_left, error.exceptions))
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClientDisconnected | asyncio.CancelledError):
            return True
        if type(seen).__name__ in _CLIENT_LEFT:
            return True
        seen = seen.__cause__
    return False
