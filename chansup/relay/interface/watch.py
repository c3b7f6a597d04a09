"""The watch over the client of one request: its body is taken, and noticed when it goes away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chansup.relay.interface.upload import Upload

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_log = logging.getLogger("chansup.relay")


class Watch:
    """Begins at once. A task of its own: servers tell of a disconnect only to who receives."""

    __slots__ = ("_on_left", "_path", "_receive", "_task", "_upload")

    def __init__(
        self,
        path: str,
        receive: Receive,
        upload: Upload | None,
        on_left: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`on_left` is called when the client is gone."""
        self._path = path
        self._receive = receive
        self._upload = upload
        self._on_left = on_left
        self._task = loop.create_task(self._watch())

    def end(self) -> None:
        """Watch no longer."""
        self._task.cancel()

    async def _watch(self) -> None:
        try:
            await self._until_client_leaves()
        except Exception as error:
            _log.error("%s: the server broke: %r", self._path, error)
        self._on_left()

    async def _until_client_leaves(self) -> None:
        if self._upload is not None:
            await self._upload.run()
        if self._upload is None or self._upload.is_complete:
            while (await self._receive())["type"] != "http.disconnect":
                pass
