"""The life of a WebSocket in the relay, from one worker to the next, in one table."""

from enum import IntEnum, auto


class Phase(IntEnum):
    """Where a WebSocket stands."""

    SEEKING = auto()  # not accepted, and no worker works on it
    CONNECTING = auto()  # not accepted yet, a worker decides
    OPEN = auto()  # a worker has it
    LEAVING = auto()  # its worker was told to let it go, and finishes what it has in hand
    BETWEEN = auto()  # open for the client, and no worker has it
    REJOINING = auto()  # open for the client, another worker has not accepted it yet
    OVER = auto()


class Happening(IntEnum):
    """What moves it on."""

    FOUND = auto()  # a worker for it
    ACCEPTED = auto()
    ASKED_TO_LEAVE = auto()
    LET_GO = auto()  # by the app, which has returned
    WORKER_DIED = auto()
    ENDED = auto()  # for the client, or for good


COURSE: dict[Phase, dict[Happening, Phase]] = {
    Phase.SEEKING: {Happening.FOUND: Phase.CONNECTING, Happening.ENDED: Phase.OVER},
    Phase.CONNECTING: {
        Happening.ACCEPTED: Phase.OPEN,
        Happening.WORKER_DIED: Phase.SEEKING,
        Happening.ENDED: Phase.OVER,
    },
    Phase.OPEN: {
        Happening.ASKED_TO_LEAVE: Phase.LEAVING,
        Happening.WORKER_DIED: Phase.BETWEEN,
        Happening.ENDED: Phase.OVER,
    },
    Phase.LEAVING: {
        Happening.LET_GO: Phase.BETWEEN,
        Happening.WORKER_DIED: Phase.BETWEEN,
        Happening.ENDED: Phase.OVER,
    },
    Phase.BETWEEN: {Happening.FOUND: Phase.REJOINING, Happening.ENDED: Phase.OVER},
    Phase.REJOINING: {
        Happening.ACCEPTED: Phase.OPEN,
        Happening.WORKER_DIED: Phase.BETWEEN,
        Happening.ENDED: Phase.OVER,
    },
    Phase.OVER: {},
}

OPEN_FOR_CLIENT = frozenset({Phase.OPEN, Phase.LEAVING, Phase.BETWEEN, Phase.REJOINING})
PAUSED = frozenset({Phase.LEAVING, Phase.BETWEEN, Phase.REJOINING})
NEEDS_WORKER = frozenset({Phase.SEEKING, Phase.BETWEEN})
HAS_WORKER = frozenset({Phase.CONNECTING, Phase.OPEN, Phase.LEAVING, Phase.REJOINING})
