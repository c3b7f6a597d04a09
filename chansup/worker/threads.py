"""A thread of its own for each consumer that is synchronous."""

import contextlib
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, cast


class OwnThread:
    """What asgiref's ThreadSensitiveContext is, but that its end waits for no thread.

    Several versions of asgiref wait for it there, and hold up the event loop meanwhile.
    """

    async def __aenter__(self) -> None:
        """Have what is run in a thread from here on run in one of its own."""
        from asgiref.sync import ThreadSensitiveContext

        self._context = cast(Any, ThreadSensitiveContext())
        await self._context.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the thread end when it has nothing to do any more."""
        from asgiref.sync import SyncToAsync

        executor = SyncToAsync.context_to_thread_executor.pop(self._context, None)
        if executor is not None:
            executor.shutdown(wait=False)
        await self._context.__aexit__(kind, error, trace)


def own_thread() -> AbstractAsyncContextManager[None]:
    """Return the context; without asgiref nothing is run in threads that it could change."""
    try:
        import asgiref.sync  # noqa: F401
    except ImportError:
        return contextlib.nullcontext()
    return OwnThread()
