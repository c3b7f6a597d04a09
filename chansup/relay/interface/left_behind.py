"""What stays at a worker of a request that went to another one."""

from chansup.protocol import relay_board as board
from chansup.relay.frames import FINISHED, MORE, Kind
from chansup.relay.interface.pool_counters import PoolCounters
from chansup.relay.interface.worker import Worker


class LeftBehind:
    """Takes what the worker still sends, until the app has returned there."""

    websocket: None = None

    def __init__(self, worker: Worker, counters: PoolCounters) -> None:
        self._worker = worker
        self._counters = counters

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Forget a frame: nobody waits for it."""
        if not flags & MORE and (kind == Kind.DONE or flags & FINISHED):
            self._counters.add(board.IN_FLIGHT, -1)
            self._worker.release()

    def worker_lost(self) -> None:
        """Take notice that the worker is gone."""
        self._counters.add(board.IN_FLIGHT, -1)
