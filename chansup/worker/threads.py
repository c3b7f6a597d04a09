"""Threads of synchronous consumers: one for each, and what they raise arrives."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, cast


class OwnThread:
    """What asgiref's ThreadSensitiveContext is, but that its end waits for no thread.

    Several versions of asgiref wait for it there, and hold up the event loop meanwhile.
    """

    async def __aenter__(self) -> None:
        """Have code that runs in a thread from here on run in one of its own."""
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


def let_stop_iteration_arrive(loop: asyncio.AbstractEventLoop) -> None:
    """Let who waits for a thread of this loop hear of a StopIteration in it.

    Futures of asyncio refuse one (python/cpython#112182; not every 3.11 has the mend), and whoever
    waits would wait for ever: for a consumer, until somebody restarts its process.
    """
    run = loop.run_in_executor

    def run_in_executor(executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        return run(executor, partial(_call, function), *arguments)

    cast(Any, loop).run_in_executor = run_in_executor


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError("a thread raised StopIteration") from error
