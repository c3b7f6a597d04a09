"""The lifespan of the app in one worker (ASGI, "Lifespan Protocol")."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from chansup.errors import ChansupError


class LifespanFailedError(ChansupError):
    """The app said that it cannot start."""


class Lifespan:
    """Startup and shutdown. `state` is what every scope gets a copy of."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.state: dict[str, Any] = {}
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._answer: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the startup. An app without lifespan is fine. Raises LifespanFailedError."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._task = loop.create_task(self._run())
        self._events.put_nowait("lifespan.startup")
        failure = await self._answer
        if failure is not None:
            raise LifespanFailedError(f"lifespan startup failed: {failure}".rstrip(": "))

    async def stop(self) -> str | None:
        """Run the shutdown. Return what the app says went wrong."""
        if self._task is None or self._task.done():
            return None
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait("lifespan.shutdown")
        return await self._answer

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except Exception:  # noqa: S110 - an app without lifespan raises whatever it likes
            pass
        finally:
            self._tell(None)

    async def _receive(self) -> MutableMapping[str, Any]:
        return {"type": await self._events.get()}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        failed = message["type"].endswith(".failed")
        self._tell(message.get("message", "") if failed else None)

    def _tell(self, failure: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(failure)
