"""One WebSocket of a trial: its messages and the answers."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from chansup import __version__
from chansup.cli.trial.comparison import Answer
from chansup.errors import ChansupError
from chansup.protocol import roster

_MOST = 100  # answers in a row; an app that speaks all the time is not waited for
_HANDSHAKE_TIMEOUT = 30.0  # seconds
_ABNORMAL = 1006  # RFC 6455, section 7.4.1: no close frame came


class Options(msgspec.Struct, frozen=True):
    """The messages to the app, and how long is listened. Times are seconds."""

    url: str
    subprotocols: Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = ()
    first: Sequence[str] = ()  # what opens the session, before the move
    again: Sequence[str] = ()  # what is said after the move
    answers: int | None = None  # to wait for after each message; None: until it is silent
    silence: float = 2.0  # that means that no more answers come
    insecure: bool = False


class Conversation:
    """A connection, with everything that came on it."""

    def __init__(self, connection: ClientConnection, options: Options) -> None:
        self._connection = connection
        self._options = options

    @property
    def close_code(self) -> int | None:
        """The code with which it was closed; None while it is open."""
        code = self._connection.close_code
        if code is None and self._connection.state.name == "CLOSED":
            return _ABNORMAL
        return code

    @property
    def subprotocol(self) -> str | None:
        """What the app accepted."""
        return self._connection.subprotocol

    async def greeting(self) -> list[Answer]:
        """Return what comes before anything is said."""
        return await self.hear(None)

    async def say(self, messages: Sequence[str]) -> list[Answer]:
        """Say something; return what comes back."""
        heard: list[Answer] = []
        for message in messages:
            with suppress(ConnectionClosed):
                await self._connection.send(message)
            heard += await self.hear(self._options.answers)
        return heard

    async def hear(self, number: int | None) -> list[Answer]:
        """Return what comes: `number` messages, or until it is silent, or closed."""
        heard: list[Answer] = []
        limit = _MOST if number is None else number
        with suppress(TimeoutError, ConnectionClosed):
            while len(heard) < limit:
                async with asyncio.timeout(self._options.silence):
                    heard.append(await self._connection.recv())
        return heard

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()


async def dial(options: Options, mark: str | None = None) -> Conversation:
    """Open a WebSocket, with a mark by which it can be ordered to move. Raises ChansupError."""
    headers = list(options.headers)
    if mark is not None:
        headers.append((roster.MARK.decode(), mark))
    context = None
    if urlsplit(options.url).scheme == "wss":
        context = ssl.create_default_context()
        if options.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        connection = await connect(
            options.url,
            subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
            additional_headers=headers,
            user_agent_header=f"chansup/{__version__}",
            ssl=context,
            open_timeout=_HANDSHAKE_TIMEOUT,
            close_timeout=2.0,
            max_size=None,
            proxy=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        raise ChansupError(
            f"{options.url}: the handshake was answered {status}: give what the app wants to see, "
            "with --header (many want the origin: -H 'Origin: https://HOST'), --subprotocol or in "
            "the query"
        ) from None
    except (OSError, InvalidHandshake, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise ChansupError(f"{options.url}: no WebSocket could be opened: {reason}") from None
    return Conversation(connection, options)
